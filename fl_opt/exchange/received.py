"""A client's side of the downlink: from a message to the model to train from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import ExchangeError, ModelError, PayloadError
from fl_opt.exchange import records
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.downlink.base import NOTHING, SEED
from fl_opt.exchange.moves import read_moves
from fl_opt.exchange.reference import Reference
from fl_opt.exchange.rules import ReplyRules
from fl_opt.params import NamedArrays, ParamSpec

InitialFn = Callable[[], NamedArrays]
"""Builds the model that the server began with; names do not matter, their order does."""


class ReferenceNeededError(ExchangeError):
    """The client cannot build on what the server takes for granted; it is to be told so."""


@dataclass(frozen=True)
class Received:
    """A model as a client received it.

    Attributes
    ----------
    spec : ParamSpec
    version : int
    reference : Reference
        What the client's update is a difference against.
    rules : ReplyRules
    keep : bool
        Whether the client is to keep the reference.
    update : int
        Id of the update that is asked for; 0 for none.
    acknowledged : int
        Id of the last update from this client that was accepted.
    """

    spec: ParamSpec
    version: int
    reference: Reference
    rules: ReplyRules
    keep: bool
    update: int
    acknowledged: int

    def arrays(self, start: NDArray[np.float32] | None = None) -> dict[str, NDArray[Any]]:
        """Return the named arrays of the model: copies, free to be changed.

        ``start``, of the reference's shape, stands in for its vector.
        """
        vector = self.reference.vector if start is None else start
        exact = {name: array.copy() for name, array in self.reference.exact.items()}
        return self.spec.unflatten(vector.copy(), exact)


def receive(
    payload: bytes, meta: Mapping[str, object], state: ClientState, initial: InitialFn | None
) -> Received:
    """Reconstruct the model that a message is about.

    Parameters
    ----------
    payload : bytes
        Empty if the message has none.
    meta : mapping
        What came beside it.
    state : ClientState
        What the client holds; it is only read.
    initial : callable, optional
        Builds the first model from the seed.

    Raises
    ------
    ReferenceNeededError
        If the client does not hold, and cannot build, what the message builds on; or if what
        comes out is not what the server says.
    PayloadError, ExchangeError
        If anything in the message is not exactly right.
    """
    version = records.meta_value(meta, "version", int)
    if version < 0:
        raise ExchangeError(f"model version {version} is negative")
    step = records.meta_value(meta, "step", float)
    if not 0.0 <= step < math.inf:
        raise ExchangeError(f"step = {step} is not a finite number from 0 up")
    spec = _spec(meta, state)
    base = _base(records.meta_value(meta, "base", str), spec, step, state, initial)
    if payload:
        moves, exact = read_moves(payload, spec, base.alive)
        if spec.exact_arrays and not exact:
            raise PayloadError("payload lacks the exact arrays")
        base = base.moved(moves, exact, step)
    expected = records.meta_value(meta, "reference", str)
    if base.fingerprint != expected:
        raise ReferenceNeededError(
            f"the reference has fingerprint {base.fingerprint}, the server's {expected:.40}"
        )
    return Received(
        spec=spec,
        version=version,
        reference=base,
        rules=ReplyRules.from_meta(meta),
        keep=records.meta_value(meta, "keep", bool),
        update=records.meta_value(meta, "update", int),
        acknowledged=records.meta_value(meta, "acknowledged", int),
    )


def _spec(meta: Mapping[str, object], state: ClientState) -> ParamSpec:
    """Return the description of the model: the one sent, or the one kept."""
    fingerprint = records.meta_value(meta, "spec", str)
    if "model" in meta:
        spec = ParamSpec.from_bytes(records.meta_value(meta, "model", bytes))
        if spec.fingerprint != fingerprint:
            raise PayloadError("malformed model description: its fingerprint is another")
        return spec
    if state.spec is None or state.spec.fingerprint != fingerprint:
        raise ReferenceNeededError(f"model {fingerprint:.40} is not known here")
    return state.spec


def _base(
    name: str, spec: ParamSpec, step: float, state: ClientState, initial: InitialFn | None
) -> Reference:
    if name == NOTHING:
        return Reference(np.zeros(spec.size, np.float32), {})
    if name == SEED:
        return _from_seed(spec, step, initial)
    held = state.reference
    if held is None or state.spec != spec or held.fingerprint != name:
        found = "nothing" if held is None else held.fingerprint
        raise ReferenceNeededError(f"this client holds {found}, not {name:.40}")
    return held


def _from_seed(spec: ParamSpec, step: float, initial: InitialFn | None) -> Reference:
    if initial is None:
        raise ReferenceNeededError("this client cannot build the first model")
    built = list(initial().values())
    if len(built) != len(spec.arrays):
        raise ReferenceNeededError(
            f"the first model built here has {len(built)} arrays, not {len(spec.arrays)}"
        )
    named = {a.name: np.asarray(v) for a, v in zip(spec.arrays, built, strict=True)}
    try:
        return Reference.of(spec, named, step)
    except ModelError as error:
        raise ReferenceNeededError(f"the first model built here: {error}") from None
