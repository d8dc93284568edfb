"""Examples in files of which only what is used is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from fl_opt.data.examples import Examples


def map_array(path: Path) -> NDArray[Any]:
    """Map an ``.npy`` file into memory.

    Processes that map the same file share its pages. They are mapped copy on write: torch
    knows no tensors that are read only, and a write that should not be changes a private copy
    of the page, where with ``"r"`` it would end the process.

    Raises
    ------
    OSError, ValueError
        If the file is not there or no such file.
    """
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


@dataclass(frozen=True)
class MappedExamples(Examples):
    """Examples whose tensors are memory maps.

    Another process gets the names of the files, not their contents.
    """

    files: tuple[Path, Path]

    @classmethod
    def open(cls, inputs: Path, targets: Path) -> Self:
        """Map the files of the inputs and of the targets."""
        maps = torch.from_numpy(map_array(inputs)), torch.from_numpy(map_array(targets))
        return cls(*maps, (inputs, targets))

    def __reduce__(self) -> tuple[Any, ...]:
        if all(path.exists() for path in self.files):
            return MappedExamples.open, self.files
        # Removed from the cache meanwhile: what is mapped here is still good.
        return Examples, (self.inputs, self.targets)
