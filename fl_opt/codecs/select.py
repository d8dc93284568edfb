"""First stage: which coordinates of an update are sent.

A selection returns strictly increasing positions, or None for all of them, and is the one
place where a vector is checked for NaN and infinity: no payload ever carries either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.draw import Draw
from fl_opt.codecs.update import Layout, Positions, Vector
from fl_opt.errors import CodecError, ConfigError

_CHUNK = 1 << 16
"""Entries looked at together: small enough to stay in a core's second-level cache."""
_SAMPLE = 1 << 16
_ROW = 1 << 12
_MAX_BLOCK: Final = 1 << 20


class Selection(Protocol):
    """Chooses the coordinates that are sent."""

    name: ClassVar[str]
    sparse: ClassVar[bool]

    def select(self, vector: Vector, seed: int, layout: Layout) -> Positions | Draw | None:
        """Return the positions to send, strictly increasing int64; None for all.

        A :class:`~fl_opt.codecs.draw.Draw` stands for positions that its seed describes.

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
        _check_finite(vector)


@dataclass(frozen=True)
class TopK:
    """The entries of largest magnitude, over the whole model or over each of its arrays.

    Exactly ``k = max(1, round(density * size))`` entries are kept (fewer only where fewer are
    not zero); of equal magnitudes those at lower positions win, so that the choice is the same
    on every machine. The cut is estimated on a sample; what passes it is ranked exactly.

    Parameters
    ----------
    density : float
        Fraction of entries kept, in (0, 1].
    scope : {"model", "tensor"}
        Where entries compete: all against all, which keeps the most energy, or within each
        array, so that every array that is not empty sends at least one.
    """

    density: float = 0.01
    scope: Literal["model", "tensor"] = "model"

    name: ClassVar[str] = "topk"
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_density(self.density)
        if self.scope not in ("model", "tensor"):
            raise ConfigError(f"scope = {self.scope!r} is not 'model' or 'tensor'")

    def select(self, vector: Vector, seed: int, layout: Layout) -> Positions:
        """Return the positions of the largest magnitudes."""
        sizes = [vector.size]
        if self.scope == "tensor":
            sizes = [math.prod(shape) for shape in layout]
            if sum(sizes) != vector.size:
                raise CodecError(
                    f"layout of {sum(sizes)} entries for a vector of {vector.size}"
                )
        found = [np.empty(0, np.int64)]
        start = 0
        for size in sizes:
            if size:
                part = vector[start : start + size]
                found.append(_largest(part, _count(self.density, size), start))
            start += size
        return np.concatenate(found)


@dataclass(frozen=True)
class RandK:
    """Entries at random: all positions cost 8 bytes, the seed that both ends draw from.

    ``max(1, round(density * size))`` entries, without replacement; :mod:`fl_opt.codecs.draw`
    has the rule.

    Parameters
    ----------
    density : float
        Fraction of entries kept, in (0, 1].
    scale : {"one", "unbiased"}
        Values as they are, as error feedback needs them (what is left out stays in the
        residual; multiplied, the residual would grow), or times ``size / count``, which makes
        the expectation of the update the vector itself.
    """

    density: float = 0.01
    scale: Literal["one", "unbiased"] = "one"

    name: ClassVar[str] = "randk"
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_density(self.density)
        if self.scale not in ("one", "unbiased"):
            raise ConfigError(f"scale = {self.scale!r} is not 'one' or 'unbiased'")

    def select(self, vector: Vector, seed: int, layout: Layout) -> Draw:
        """Check the vector and draw."""
        _check_finite(vector)
        return self.draw(vector.size, seed)

    def draw(self, size: int, seed: int) -> Draw:
        """Draw from the entries of any vector of a size."""
        count = _count(self.density, size) if size else 0
        gain = size / count if count and self.scale == "unbiased" else 1.0
        return Draw(size, count, seed % (1 << 64), gain)


@dataclass(frozen=True)
class Threshold:
    """Every entry of at least a given magnitude: a size that follows the update.

    Parameters
    ----------
    value : float
        Smallest magnitude kept, above zero; rounded to single precision, as the entries are.
    """

    value: float

    name: ClassVar[str] = "threshold"
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        tiny, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
        if not tiny <= self.value <= largest:
            raise ConfigError(f"value = {self.value} is not between {tiny} and {largest}")

    def select(self, vector: Vector, seed: int, layout: Layout) -> Positions:
        """Return the positions of the entries that reach the threshold."""
        return _at_least(vector, self.value, 0)


@dataclass(frozen=True)
class BlockTopK:
    """The entries of largest magnitude within each block of consecutive entries.

    ``max(1, round(density * length))`` of a block, fewer only where fewer are not zero; ties as
    for :class:`TopK`. Cheaper than a ranking over the model, and every region sends something
    (the chunks of SparseLoCo, Sarfi et al. 2025).

    Parameters
    ----------
    density : float
        Fraction of entries kept, in (0, 1].
    block : int
        Entries of a block; the last may be shorter.
    """

    density: float = 0.01
    block: int = 4096

    name: ClassVar[str] = "block_topk"
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_density(self.density)
        if not 2 <= self.block <= _MAX_BLOCK:
            raise ConfigError(f"block = {self.block} is not between 2 and {_MAX_BLOCK}")

    def select(self, vector: Vector, seed: int, layout: Layout) -> Positions:
        """Return the positions of the largest magnitudes of each block."""
        _check_finite(vector)
        found = [np.empty(0, np.int64)]
        end = vector.size // self.block * self.block
        stride = max(1, _CHUNK // self.block) * self.block
        for start in range(0, end, stride):
            rows = vector[start : min(start + stride, end)].reshape(-1, self.block)
            keep = _largest_of_rows(np.abs(rows), _count(self.density, self.block))
            found.append(np.flatnonzero(keep) + start)
        if end < vector.size:
            rest = vector[end:]
            found.append(_largest(rest, _count(self.density, rest.size), end))
        return np.concatenate(found)


def _check_density(density: float) -> None:
    if not 0.0 < density <= 1.0:
        raise ConfigError(f"density = {density} is not in (0, 1]")


def _count(density: float, size: int) -> int:
    return max(1, round(density * size))


def _check_finite(vector: Vector) -> None:
    # Zero times NaN or infinity is NaN, not zero; products are quicker than isfinite.
    end = vector.size // _ROW * _ROW
    with np.errstate(invalid="ignore"):
        odd = np.vecdot(vector[:end].reshape(-1, _ROW), np.zeros(_ROW, np.float32)).any()
    if odd or not np.isfinite(vector[end:]).all():
        raise _not_finite(vector, 0)


def _largest(vector: Vector, count: int, offset: int) -> Positions:
    """Positions of the ``count`` largest magnitudes, plus ``offset``."""
    candidates = _at_least(vector, _sampled_cut(vector, count), offset)
    if candidates.size < count:
        candidates = _at_least(vector, 0.0, offset)
    if candidates.size <= count:
        return candidates
    magnitudes = np.abs(vector[candidates - offset])
    cut = np.partition(magnitudes, candidates.size - count)[candidates.size - count]
    keep = magnitudes > cut
    ties = np.flatnonzero(magnitudes == cut)
    keep[ties[: count - np.count_nonzero(keep)]] = True
    kept: Positions = candidates[keep]
    return kept


def _largest_of_rows(magnitudes: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Mark the ``count`` largest magnitudes of each row, zeros left out."""
    place = magnitudes.shape[1] - count
    cut = np.partition(magnitudes, place, axis=1)[:, place, None]
    keep = magnitudes >= cut
    keep &= magnitudes > 0.0
    crowded = np.flatnonzero(np.count_nonzero(keep, axis=1) > count)
    if crowded.size:
        rows, cut = magnitudes[crowded], cut[crowded]
        above, ties = rows > cut, rows == cut
        room = count - np.count_nonzero(above, axis=1, keepdims=True)
        keep[crowded] = above | (ties & (np.cumsum(ties, axis=1) <= room))
    return keep


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


def _at_least(vector: Vector, cut: float, offset: int) -> Positions:
    """Positions, plus ``offset``, of the non-zero entries of at least ``cut``, in order."""
    threshold = np.float32(cut)
    buffer = np.empty(min(_CHUNK, vector.size), np.float32)
    found = [np.empty(0, np.int64)]
    for start in range(0, vector.size, _CHUNK):
        chunk = vector[start : start + _CHUNK]
        magnitude = np.abs(chunk, out=buffer[: chunk.size])
        if not math.isfinite(magnitude.max()):
            raise _not_finite(chunk, offset + start)
        inside = np.flatnonzero(magnitude >= threshold if threshold > 0 else magnitude)
        inside += offset + start
        found.append(inside)
    return np.concatenate(found)


def _not_finite(chunk: Vector, start: int) -> CodecError:
    """Name the first entry of a chunk, which begins at ``start``, that is not finite."""
    index = int(np.argmin(np.isfinite(chunk)))
    return CodecError(
        f"entry {start + index} of the update is {chunk[index]}; it must be finite",
        position=start + index,
    )
