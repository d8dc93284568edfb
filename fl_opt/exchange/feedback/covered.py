"""Feedback of updates that cover a part of the model only.

What is kept is of the model's full length, so that it outlives a change of the part. A round
works on the entries covered: the others are as they were before it.
"""

from __future__ import annotations

import numpy as np

from fl_opt.codecs.update import Vector
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.feedback.base import State


def narrow(state: State, covers: Coverage) -> State:
    """Return what is kept of the entries covered: new vectors."""
    return {name: covers.gather(vector) for name, vector in state.items()}


def widen(
    short: State, kept: State, covers: Coverage, alive: Coverage | None = None
) -> dict[str, Vector]:
    """Return what is kept of all entries, with new values for those covered.

    Parameters
    ----------
    short : mapping of str to ndarray, shape (covers.count,)
        The new values; names that it does not have are dropped.
    kept : mapping of str to ndarray, shape (covers.size,)
        What was kept before; it is only read.
    covers : Coverage
    alive : Coverage or None
        What is not pruned: nothing is kept of the rest, which will never be sent.
    """
    wide: dict[str, Vector] = {}
    for name, values in short.items():
        before = kept.get(name)
        vector = np.zeros(covers.size, np.float32) if before is None else before.copy()
        vector[covers.positions] = values
        wide[name] = vector if alive is None else alive.clear_others(vector)
    return wide
