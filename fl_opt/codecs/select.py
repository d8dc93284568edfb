"""First stage: which coordinates of an update are sent.

A selection returns strictly increasing positions, or None for all of them, and is the one
place where a vector is checked for NaN and infinity: no payload ever carries either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from fl_opt.codecs.update import Layout, Positions, Vector
from fl_opt.errors import CodecError, ConfigError

_CHUNK = 1 << 16
"""Entries looked at together: small enough to stay in a core's second-level cache."""
_SAMPLE = 1 << 16


class Selection(Protocol):
    """Chooses the coordinates that are sent."""

    name: ClassVar[str]
    sparse: ClassVar[bool]

    def select(self, vector: Vector, seed: int, layout: Layout) -> Positions | None:
        """Return the positions to send, strictly increasing int64; None for all.

        ``layout`` gives the shapes of the arrays that make up the vector.

        Raises
        ------
        CodecError
            If the vector holds NaN or infinity.
        """


@dataclass(frozen=True)
class All:
    """Every coordinate is sent."""

    name: ClassVar[str] = "all"
    sparse: ClassVar[bool] = False

    def select(self, vector: Vector, seed: int, layout: Layout) -> None:
        """Check the vector and keep all of it."""
        for start in range(0, vector.size, _CHUNK):
            chunk = vector[start : start + _CHUNK]
            # NaN and infinity both survive min and max, which are quicker than isfinite.
            if not (math.isfinite(chunk.max()) and math.isfinite(chunk.min())):
                raise _not_finite(vector, start)


@dataclass(frozen=True)
class TopK:
    """The entries of largest magnitude, over the whole model.

    Exactly ``k = max(1, round(density * size))`` entries are kept (fewer only where fewer are
    not zero); of equal magnitudes those at lower positions win, so that the choice is the same
    on every machine. The cut is estimated on a sample; what passes it is ranked exactly.

    Parameters
    ----------
    density : float
        Fraction of entries kept, in (0, 1].
    """

    density: float = 0.01

    name: ClassVar[str] = "topk"
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise ConfigError(f"density = {self.density} is not in (0, 1]")

    def select(self, vector: Vector, seed: int, layout: Layout) -> Positions:
        """Return the positions of the largest magnitudes."""
        size = vector.size
        if size == 0:
            return np.empty(0, np.int64)
        count = max(1, round(self.density * size))
        candidates = _at_least(vector, _sampled_cut(vector, count))
        if candidates.size < count:
            candidates = _at_least(vector, 0.0)
        if candidates.size <= count:
            return candidates
        magnitudes = np.abs(vector[candidates])
        cut = np.partition(magnitudes, candidates.size - count)[candidates.size - count]
        keep = magnitudes > cut
        ties = np.flatnonzero(magnitudes == cut)
        keep[ties[: count - np.count_nonzero(keep)]] = True
        kept: Positions = candidates[keep]
        return kept


def _sampled_cut(vector: Vector, count: int) -> float:
    """Estimate a magnitude that a little more than ``count`` entries reach."""
    if vector.size <= _SAMPLE:
        return 0.0
    stride = vector.size // _SAMPLE | 1  # odd, so as not to walk along a column of a matrix
    sample = np.abs(vector[::stride])
    expected = sample.size * count / vector.size
    rank = math.ceil(expected + 3.0 * math.sqrt(expected) + 2.0)
    if rank >= sample.size:
        return 0.0
    return float(np.partition(sample, sample.size - rank)[sample.size - rank])


def _at_least(vector: Vector, cut: float) -> Positions:
    """Positions of the non-zero entries whose magnitude reaches ``cut``, in order."""
    threshold = np.float32(cut)
    buffer = np.empty(min(_CHUNK, vector.size), np.float32)
    found = []
    for start in range(0, vector.size, _CHUNK):
        chunk = vector[start : start + _CHUNK]
        magnitude = np.abs(chunk, out=buffer[: chunk.size])
        if not math.isfinite(magnitude.max()):
            raise _not_finite(vector, start)
        inside = np.flatnonzero(magnitude >= threshold if threshold > 0 else magnitude)
        inside += start
        found.append(inside)
    return np.concatenate(found)


def _not_finite(vector: Vector, start: int) -> CodecError:
    position = start + int(np.argmin(np.isfinite(vector[start : start + _CHUNK])))
    return CodecError(
        f"entry {position} of the update is {vector[position]}; it must be finite",
        position=position,
    )
