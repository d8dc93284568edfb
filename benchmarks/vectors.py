"""What codecs are measured on: three distributions, and updates recorded from real training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.record_updates import CACHE, Recording, tasks
from fl_opt.codecs.update import Layout
from fl_opt.errors import DataError


@dataclass(frozen=True)
class Source:
    """A vector to encode, where it comes from, and the shapes of the arrays in it."""

    name: str
    vector: NDArray[np.float32]
    layout: Layout


def synthetic(size: int) -> list[Source]:
    """Return Gaussian, Laplace and Student-t(4) vectors of standard deviation 1e-3."""
    generator = np.random.default_rng(0)
    draws = {
        "Gaussian": generator.standard_normal(size),
        "Laplace": generator.laplace(size=size) / np.sqrt(2.0),
        "Student-t(4)": generator.standard_t(4, size=size) / np.sqrt(2.0),
    }
    return [
        Source(name, (1e-3 * draw).astype(np.float32), ((size,),))
        for name, draw in draws.items()
    ]


def recorded(cache: Path = CACHE) -> list[Source]:
    """Return the last client update and model difference recorded of each task.

    Nothing where ``python -m benchmarks.record_updates`` has not been run.
    """
    sources = []
    for task in tasks(quick=False):
        try:
            recording = Recording.open(task.name, cache)
        except DataError:
            continue
        last = {item.kind: item for item in recording.vectors}
        for kind, item in last.items():
            name = f"{task.name}, {kind}"
            sources.append(Source(name, recording.load(item), recording.layout))
    return sources
