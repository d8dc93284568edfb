"""The model that an update is a difference against, held bit for bit by both ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.update import Vector
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.lattice import snap
from fl_opt.exchange.masks import Move
from fl_opt.params import NamedArrays, ParamSpec

ExactArrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Reference:
    """A model as both ends hold it.

    Parameters
    ----------
    vector : ndarray of float32, shape (size,)
        Must not change any more; it is made read-only.
    exact : mapping of str to ndarray
        The arrays beside the vector.
    alive : Coverage, optional
        What is not pruned; the other entries are zero. None: nothing is pruned.
    """

    vector: Vector
    exact: ExactArrays
    alive: Coverage | None = None

    def __post_init__(self) -> None:
        self.vector.flags.writeable = False

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ when a bit of the model does."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(self.vector.astype("<f4", copy=False).data)
        for name in sorted(self.exact):
            array = self.exact[name]
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        if self.alive is not None:
            digest.update(self.alive.bits)
        return digest.hexdigest()

    @classmethod
    def of(cls, spec: ParamSpec, named: NamedArrays, step: float) -> Reference:
        """Return named arrays as a reference: copies, the vector on the lattice."""
        exact = {name: np.array(array) for name, array in spec.exact_part(named).items()}
        return cls(snap(spec.flatten(named), step), exact)

    def moved(self, moves: Iterable[Move], exact: ExactArrays, step: float) -> Reference:
        """Return the reference that decoded differences and masks lead to, in their order."""
        vector, alive = self.vector.copy(), self.alive
        for move in moves:
            if isinstance(move, Coverage):
                alive = move if move.count < move.size else None
                move.clear_others(vector)
            else:
                vector += snap(move.to_dense(), step)
        return Reference(vector, exact, alive)

    def pruned(self, alive: Coverage | None) -> Reference:
        """Return the reference under another mask: itself, if that is the same."""
        if alive == self.alive:
            return self
        return self.moved([alive or Coverage.all_of(self.vector.size)], self.exact, 0.0)
