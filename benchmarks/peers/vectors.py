"""The vectors that every codec gets, as ``.npy`` files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.record_updates import Recording, tasks
from fl_opt.errors import DataError

Vector = NDArray[np.float32]

STD: Final = 1e-3
SMALL_STD: Final = 1e-4
"""Of late rounds: quantizers with an absolute scale show here what they are worth."""


def write_all(folder: Path, size: int) -> list[Path]:
    """Write all vectors; the file names, without suffix, are the names in the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, vector in (*synthetic(size), *recorded()):
        paths.append(folder / f"{name}.npy")
        np.save(paths[-1], vector)
    return paths


def synthetic(size: int) -> Iterator[tuple[str, Vector]]:
    """Yield independent entries of three distributions, scaled to a standard deviation."""
    generator = np.random.default_rng(0)
    gaussian = generator.standard_normal(size)
    yield "gaussian", _scaled(gaussian, STD)
    yield "laplace", _scaled(generator.laplace(size=size), STD)
    yield "student-t4", _scaled(generator.standard_t(4, size), STD)
    yield "gaussian-small", _scaled(gaussian, SMALL_STD)


def recorded() -> Iterator[tuple[str, Vector]]:
    """Yield the last client's update and the longest model difference of each recorded task.

    Tasks that were not recorded yield nothing: see ``python -m benchmarks.record_updates``.
    """
    for task in tasks(quick=False):
        try:
            recording = Recording.open(task.name)
        except DataError:
            continue
        for kind in ("client-update", "model-difference"):
            entry = max(
                (entry for entry in recording.vectors if entry.kind == kind),
                key=lambda entry: (entry.round, entry.apart),
            )
            yield f"{task.name}-{kind}", recording.load(entry)


def _scaled(values: NDArray[np.float64], std: float) -> Vector:
    scaled: Vector = (values * (std / values.std())).astype(np.float32)
    return scaled
