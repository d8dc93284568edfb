"""Feedback's state in a client's ``context.state``, which outlives the round."""

from __future__ import annotations

from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fl_opt.codecs.update import Vector
from fl_opt.exchange.feedback.base import Feedback, State
from fl_opt.params import ParamSpec

KEY: Final = "fl-opt.feedback"
"""Of the ArrayRecord that holds the vectors, by name."""

_MODEL: Final = "fl-opt.feedback.model"
_STYPE: Final = "fl_opt.vector/1"


def load_state(records: RecordDict, feedback: Feedback, spec: ParamSpec) -> dict[str, Vector]:
    """Return what was kept from the last round (read-only vectors); empty if there is nothing.

    What belonged to another model, or to a kind of feedback that keeps vectors of other names,
    is not returned. ``residual`` and ``step_ahead`` keep the same, so that one can take over
    from the other, with other settings too.
    """
    arrays, model = records.array_records.get(KEY), records.config_records.get(_MODEL)
    if arrays is None or model is None or model.get("fingerprint") != spec.fingerprint:
        return {}
    if set(arrays) != set(feedback.arrays):
        return {}
    if any(not _fits(array, spec.size) for array in arrays.values()):
        return {}
    return {name: np.frombuffer(array.data, "<f4") for name, array in arrays.items()}


def store_state(records: RecordDict, state: State, spec: ParamSpec) -> None:
    """Keep a state for the next round, in place of the last one; empty: keep nothing."""
    if not state:
        records.pop(KEY, None)
        records.pop(_MODEL, None)
        return
    records[KEY] = ArrayRecord({name: _pack(vector) for name, vector in state.items()})
    records[_MODEL] = ConfigRecord({"fingerprint": spec.fingerprint})


def _pack(vector: Vector) -> Array:
    data = vector.astype("<f4", copy=False).tobytes()
    return Array("float32", vector.shape, _STYPE, data)


def _fits(array: Array, size: int) -> bool:
    return array.stype == _STYPE and array.shape == (size,) and len(array.data) == 4 * size
