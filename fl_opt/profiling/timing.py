"""Timing on a shared machine: medians of runs that take turns, so that ratios hold."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def side_by_side(
    functions: Mapping[Key, Callable[[], object]], repeats: int
) -> dict[Key, float]:
    """Time functions in turns: one call of each, again and again.

    Parameters
    ----------
    functions : mapping to callable
        By any name.
    repeats : int
        Counted rounds, after one that warms up.

    Returns
    -------
    dict to float
        The median seconds of each.
    """
    samples: dict[Key, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if turn:
                samples[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in samples.items()}
