"""Error feedback: what a lossy codec left out is added to the next update.

Seide et al. 2014 ("1-bit stochastic gradient descent"), Stich et al. 2018 ("Sparsified SGD
with memory"): ``v = delta + residual``, send ``C(v)``, keep ``v - C(v)``. The residual is
computed from the very payload that is sent, so that it holds what the server does not get.
"""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import Update

_KEY = "fl-opt.residual"
_STYPE = "fl_opt.vector/1"


def load_residual(state: RecordDict, size: int) -> NDArray[np.float32] | None:
    """Return the residual kept from the last round (read-only), or None if there is none.

    A residual of another size belonged to another model and is dropped.
    """
    record = state.array_records.get(_KEY)
    if record is None:
        return None
    array = record["residual"]
    if array.stype != _STYPE or array.shape != (size,) or len(array.data) != 4 * size:
        return None
    return np.frombuffer(array.data, "<f4")


def store_residual(state: RecordDict, residual: NDArray[np.float32]) -> None:
    """Keep a residual for the next round."""
    data = residual.astype("<f4", copy=False).tobytes()
    state[_KEY] = ArrayRecord({"residual": Array("float32", residual.shape, _STYPE, data)})


def clear_residual(state: RecordDict) -> None:
    """Forget the residual."""
    state.pop(_KEY, None)


def add_residual(
    delta: NDArray[np.float32], residual: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return ``delta + residual``, in ``delta``'s own memory."""
    if residual is not None:
        delta += residual
    return delta


def remaining(vector: NDArray[np.float32], sent: Update) -> NDArray[np.float32]:
    """Return ``vector - sent``, in ``vector``'s own memory: the new residual."""
    sent.add_to(vector, -1.0)
    return vector
