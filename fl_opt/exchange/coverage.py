"""Which entries of the model a vector covers, where it does not cover all of them.

Both ends know it: they have agreed on what is pruned, and on who trains which part. Then a
codec sees the shorter vector of what is covered, and where its entries stand costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs import SparseUpdate, Update
from fl_opt.codecs.update import Layout, Positions, Vector
from fl_opt.errors import PayloadError
from fl_opt.params import ParamSpec

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Coverage:
    """A set of entries of a vector.

    Parameters
    ----------
    size : int
        Entries of the whole vector.
    bits : bytes
        One bit an entry, from the lowest up, set where the entry is covered.
    """

    size: int
    bits: bytes

    def __post_init__(self) -> None:
        if len(self.bits) != -(-self.size // 8):
            raise PayloadError(f"a mask of {self.size} entries has {len(self.bits)} bytes")

    @classmethod
    def of(cls, mask: Mask) -> Coverage:
        """Return what a mask of shape ``(size,)`` covers."""
        return cls(mask.size, np.packbits(mask, bitorder="little").tobytes())

    @classmethod
    def at(cls, positions: Positions, size: int) -> Coverage:
        """Return what covers some positions, which may be in any order."""
        mask = np.zeros(size, np.bool_)
        mask[positions] = True
        return cls.of(mask)

    @classmethod
    def all_of(cls, size: int) -> Coverage:
        """Return what covers every entry."""
        return cls.of(np.ones(size, np.bool_))

    @cached_property
    def mask(self) -> Mask:
        """True where an entry is covered; shape ``(size,)``, read-only."""
        bits = np.unpackbits(
            np.frombuffer(self.bits, np.uint8), count=self.size, bitorder="little"
        )
        bits.flags.writeable = False
        return bits.view(np.bool_)

    @cached_property
    def positions(self) -> Positions:
        """What is covered: int64, strictly increasing, shape ``(count,)``, read-only."""
        positions = np.flatnonzero(self.mask)
        positions.flags.writeable = False
        return positions

    @property
    def count(self) -> int:
        """Number of entries covered."""
        return self.positions.size

    def __and__(self, other: Coverage) -> Coverage:
        """Return what both cover."""
        return Coverage.of(self.mask & other.mask)

    def __le__(self, other: Coverage) -> bool:
        """Whether the other one covers all that this one does."""
        return not bool((self.mask & ~other.mask).any())

    def gather(self, vector: Vector) -> Vector:
        """Return the entries covered: a new vector of shape ``(count,)``."""
        return vector[self.positions]

    def gather_mask(self, other: Coverage) -> Mask:
        """Return for each entry covered whether another one covers it, too."""
        return other.mask[self.positions]

    def scatter(self, update: Update) -> Update:
        """Return an update of ``count`` entries as one of the whole vector.

        It carries what it carried before; all other entries are zero.
        """
        if isinstance(update, SparseUpdate):
            return SparseUpdate(self.size, self.positions[update.positions], update.values)
        return SparseUpdate(self.size, self.positions, update.to_dense())

    def clear_others(self, vector: Vector) -> Vector:
        """Set what is not covered to zero, in place, and return the vector."""
        vector[~self.mask] = 0.0
        return vector

    def layout(self, spec: ParamSpec) -> Layout:
        """Return the shapes of what is covered of each array: one-dimensional."""
        return tuple((int(np.count_nonzero(part)),) for part in self._parts(spec))

    def _parts(self, spec: ParamSpec) -> Iterator[Mask]:
        start = 0
        for array in spec.vector_arrays:
            yield self.mask[start : start + array.size]
            start += array.size
