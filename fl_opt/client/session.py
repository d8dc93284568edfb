"""One round on a client: receive the model, let the app train it, encode what it learned.

:class:`~fl_opt.client.CompressedNumPyClient` and :func:`~fl_opt.client.compression_mod` are
skins over this, for the two ways in which Flower apps are written.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flwr.app import Context
from numpy.typing import NDArray

from fl_opt.errors import ConfigError, PayloadError
from fl_opt.exchange import records
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.downlink.base import SEED
from fl_opt.exchange.received import InitialFn, Received, ReferenceNeededError, receive
from fl_opt.exchange.records import MetaValue
from fl_opt.exchange.rules import ReplyRules
from fl_opt.exchange.submodels import build_submodels, width_of
from fl_opt.exchange.uplink import reply_meta, resend, settle
from fl_opt.params import NamedArrays
from fl_opt.profiling.memory import peak_memory_bytes
from fl_opt.spans import SpanLog, measuring, span, to_json

TrainFn = Callable[[dict[str, NDArray[Any]]], NamedArrays]
EvaluateFn = Callable[[dict[str, NDArray[Any]]], Mapping[str, float]]

MODEL_WIDTH: Final = "model-width"
"""Entry of a node's configuration: share of the hidden units that it can train."""


@dataclass(frozen=True)
class Outcome:
    """What a message to a client came to.

    Attributes
    ----------
    payload : bytes
        The coded update; empty if there is none.
    meta : dict
        What goes beside it.
    evaluation : mapping or None
        What ``evaluate`` returned for the model received, if it was asked.
    done : bool
        False if the client could not do what was asked, and says what it needs, or if the
        update was sent before and is only repeated: the app has not run.
    """

    payload: bytes
    meta: dict[str, MetaValue]
    evaluation: Mapping[str, float] | None = None
    done: bool = True


def train_round(
    payload: bytes,
    meta: Mapping[str, object],
    context: Context,
    train: TrainFn,
    *,
    initial: InitialFn | None = None,
    evaluate: EvaluateFn | None = None,
) -> Outcome:
    """Answer a training message.

    Parameters
    ----------
    payload : bytes
        What takes the client to the model to train from; may be empty.
    meta : mapping
        What came beside it.
    context : Context
        The client's; what must outlive the round is kept in its state.
    train : callable
        Takes the named arrays to start from (its own to change) and returns them trained.
    initial : callable, optional
        Builds the model that the server began with.
    evaluate : callable, optional
        Takes the named arrays of the model received and returns metrics, among them ``loss``
        and ``num-examples``. It is called before training, if the server asks for it.

    Raises
    ------
    ExchangeError, ModelError, CodecError
        The state is as it was then.
    """
    log = SpanLog() if meta.get("spans") is True else None
    with measuring(log):
        with span("receive"):
            client = ClientState.load(context.state)
            if (again := resend(meta, client)) is not None:
                return Outcome(*again, done=False)
            received = _receive(payload, meta, client, initial)
        if isinstance(received, Outcome):
            return received
        evaluation = None
        if evaluate is not None and received.rules.evaluate:
            with span("evaluate"):
                evaluation = evaluate(received.arrays())
        width = client_width(received.rules, context)
        turn = settle(received, client, context.state, width=width)
        begin = time.perf_counter()
        with span("train"):
            trained = train(turn.start_arrays())
        trained_at = time.perf_counter()
        with span("encode"):
            reply, beside = turn.finish(
                trained, context.state, client_id=client_identity(context)
            )
    costs: dict[str, MetaValue] = {
        "train-seconds": trained_at - begin,
        "encode-seconds": time.perf_counter() - trained_at,
        "peak-memory-bytes": float(peak_memory_bytes()),
    }
    if log is not None:
        costs["spans"] = to_json(log.take())
    return Outcome(reply, {**beside, **costs}, evaluation)


def evaluate_round(
    payload: bytes,
    meta: Mapping[str, object],
    context: Context,
    evaluate: Callable[[dict[str, NDArray[Any]]], None],
    *,
    initial: InitialFn | None = None,
) -> Outcome:
    """Answer a message that asks for no update: call ``evaluate``, keep the model received.

    Parameters and errors are those of :func:`train_round`.
    """
    client = ClientState.load(context.state)
    received = _receive(payload, meta, client, initial)
    if isinstance(received, Outcome):
        return received
    evaluate(received.arrays())
    if received.keep:
        same = client.spec == received.spec
        dataclasses.replace(
            client,
            spec=received.spec,
            reference=received.reference,
            payload=client.payload if same else b"",
            covers=client.covers if same else None,
        ).store(context.state)
    costs = {"peak-memory-bytes": float(peak_memory_bytes())}
    return Outcome(b"", {**reply_meta(received), **costs})


def client_identity(context: Context) -> int:
    """Return a number that stays with a client: its partition if it has one, else its node."""
    partition = context.node_config.get("partition-id")
    return int(partition) if partition is not None else int(context.node_id)


def client_width(rules: ReplyRules, context: Context) -> float:
    """Return the width of the sub-model that a client trains; 1 for the whole model.

    The entry ``model-width`` of the node's configuration decides, where there is one, or else
    the share of clients that the server wants to be weak.

    Raises
    ------
    ConfigError
        If the entry is not a number in (0, 1].
    """
    rule = build_submodels(rules.submodels)
    if rule.width == 1.0:
        return 1.0
    own = context.node_config.get(MODEL_WIDTH)
    if own is None:
        return width_of(rule, client_identity(context), seed=rules.seed)
    if not isinstance(own, int | float) or not 0.0 < own <= 1.0:
        raise ConfigError(f"{MODEL_WIDTH} = {own!r} of the node is not a number in (0, 1]")
    return float(own)


def _receive(
    payload: bytes,
    meta: Mapping[str, object],
    client: ClientState,
    initial: InitialFn | None,
) -> Received | Outcome:
    """Return the model received, or what to answer if it cannot be reconstructed."""
    try:
        return receive(payload, meta, client, initial)
    except (ReferenceNeededError, PayloadError) as error:
        held = client.reference.fingerprint if client.reference is not None else ""
        need: dict[str, records.MetaValue] = {
            "need": str(error),
            "reference": held,
            "seed": initial is not None and meta.get("base") != SEED,
        }
        return Outcome(b"", need, done=False)
