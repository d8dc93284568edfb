"""The two ends of the exchange, without a strategy or a network between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fl_opt.exchange import records
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.downlink.base import NOTHING, Delivery, Downlink
from fl_opt.exchange.downlink.full import FullDownlink
from fl_opt.exchange.incoming import Answer, UplinkUpdate, decode_update
from fl_opt.exchange.received import InitialFn, Received, receive
from fl_opt.exchange.reference import Reference
from fl_opt.exchange.rules import ReplyRules
from fl_opt.exchange.uplink import settle
from fl_opt.params import NamedArrays, ParamSpec

Meta = dict[str, records.MetaValue]
RULES = ReplyRules("topk(0.1) | ternary", feedback="residual", seed=1)


def meta_of(
    spec: ParamSpec,
    delivery: Delivery,
    *,
    version: int = 0,
    step: float = 0.0,
    rules: ReplyRules = RULES,
    **others: records.MetaValue,
) -> Meta:
    """What a server sends beside a delivery."""
    meta: Meta = {
        "version": version,
        "base": delivery.base,
        "reference": delivery.fingerprint,
        "step": step,
        "keep": True,
        "spec": spec.fingerprint,
        "model": spec.to_bytes(),
        "update": 1,
        "acknowledged": 0,
        **rules.to_meta(),
    }
    return {**meta, **others}


def whole_model(
    model: NamedArrays,
    rules: ReplyRules = RULES,
    *,
    codec: str = "fp32",
    version: int = 4,
    **others: records.MetaValue,
) -> tuple[bytes, Meta]:
    """Payload and meta of a message with a whole model, which is not to be kept."""
    spec = ParamSpec.of(model)
    downlink = FullDownlink(codec)
    downlink.begin(spec, spec.flatten(model), spec.exact_part(model))
    delivery = downlink.serve(1, NOTHING, seed=False)
    meta = meta_of(spec, delivery, version=version, rules=rules, keep=False)
    return delivery.payload, {**meta, **others}


def received_model(
    model: NamedArrays,
    rules: ReplyRules = RULES,
    *,
    codec: str = "fp32",
    version: int = 4,
    **others: records.MetaValue,
) -> Received:
    """A whole model as a client without a state receives it."""
    payload, meta = whole_model(model, rules, codec=codec, version=version, **others)
    return receive(payload, meta, ClientState(), None)


def answer_to(
    received: Received, trained: NamedArrays, state: RecordDict, *, client_id: int = 0
) -> RecordDict:
    """A client's reply."""
    turn = settle(received, ClientState.load(state), state)
    payload, meta = turn.finish(trained, state, client_id=client_id)
    return as_content(payload, meta)


def as_content(payload: bytes, meta: Mapping[str, records.MetaValue]) -> RecordDict:
    """The content of a message."""
    content = RecordDict({records.META: records.pack_meta(meta)})
    if payload:
        content[records.ARRAYS] = records.pack_payload(payload)
    return content


def read_answer(content: RecordDict, spec: ParamSpec, *, version: int = 4) -> UplinkUpdate:
    """A reply as the server reads it."""
    return decode_update(content, Answer.of(content), spec, version=version)


class Client:
    """A client's end of a downlink: it keeps its reference from message to message."""

    def __init__(self, node_id: int, initial: NamedArrays | None = None) -> None:
        self.node_id = node_id
        self.initial: InitialFn | None = None if initial is None else lambda: initial
        self.state = ClientState()
        self.model = Reference(np.empty(0, np.float32), {})
        """The model received last."""

    @property
    def held(self) -> str:
        """Fingerprint of the reference, as the client reports it."""
        return NOTHING if self.state.reference is None else self.state.reference.fingerprint

    def get(self, downlink: Downlink, spec: ParamSpec, *, answered: bool = True) -> Delivery:
        """Be served, check that all is as the server says, and confirm if answered."""
        delivery = downlink.serve(self.node_id, self.held, seed=self.initial is not None)
        meta = meta_of(spec, delivery, version=downlink.version, step=downlink.step)
        received = receive(delivery.payload, meta, self.state, self.initial)
        self.model = received.reference
        self.state = dataclasses.replace(
            self.state, spec=spec, reference=received.reference if downlink.keeps else None
        )
        if answered:
            downlink.confirm(self.node_id, self.held)
        return delivery

    def restart(self) -> None:
        """Lose all that is remembered."""
        self.state = ClientState()


def same_bits(left: Reference, right: Reference) -> bool:
    """Whether two references are equal to the bit, exact arrays included."""
    return (
        left.vector.tobytes() == right.vector.tobytes()
        and left.exact.keys() == right.exact.keys()
        and all(_bits(left.exact[n]) == _bits(right.exact[n]) for n in left.exact)
    )


def _bits(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    return np.dtype(array.dtype).name, array.shape, array.tobytes()
