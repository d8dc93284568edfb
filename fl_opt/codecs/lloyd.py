"""Levels of least squared error: a table of centroids in the payload.

Lloyd 1982 ("Least squares quantization in PCM"), Max 1960: each value goes to the nearest
level, each level is the mean of the values that go to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.gaussian import normal_centroids
from fl_opt.codecs.levels import Levels, chunks_of, look_up
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import Reader, Writer

MAX_BITS: Final = 8
_SAMPLE: Final = 1 << 16
_RANKS: Final = 1025
_ROUNDS: Final = 100
_TOLERANCE: Final = 1e-4
_FEW: Final = 63
"""Borders up to which comparing with each is quicker than a search."""


@dataclass(frozen=True)
class Lloyd(Levels):
    """A table of ``2**bits`` levels, in rising order; the code is the index."""

    table: Vector

    wire_id: ClassVar[int] = 7

    @property
    def width(self) -> int:
        """Bits of a code."""
        return self.table.size.bit_length() - 1

    def write(self, writer: Writer) -> None:
        """Append bits and table."""
        writer.byte(self.width)
        writer.array(self.table)

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read bits and table."""
        bits = reader.byte()
        if not 1 <= bits <= MAX_BITS:
            raise PayloadError(f"malformed payload: {bits} bits where 1 to {MAX_BITS} may be")
        table = reader.array(np.dtype(np.float32), 1 << bits).astype(np.float32)
        if not np.isfinite(table).all() or (table[1:] < table[:-1]).any():
            raise PayloadError("malformed payload: levels are not finite and in rising order")
        return cls(table)

    def restore(self, codes: Unsigned) -> Vector:
        """Look the codes up."""
        return look_up(self.table, codes)


@dataclass(frozen=True)
class LloydMax:
    """Levels fitted to the values: the least squared error that codes of fixed width allow.

    Parameters
    ----------
    bits : int
        Bits a value, from 1 to 8; the table costs 4 bytes a level.
    fit : {"data", "normal"}
        Levels fitted to the values at hand (Lloyd's iteration on a sample of 65,536, then the
        mean of all the values of each level), or those of a normal distribution with the mean
        square of the values.
    """

    bits: int = 2
    fit: Literal["data", "normal"] = "data"

    name: ClassVar[str] = "lloyd_max"
    needs_selection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise ConfigError(f"bits = {self.bits} is not between 1 and {MAX_BITS}")
        if self.fit not in ("data", "normal"):
            raise ConfigError(f"fit = {self.fit!r} is not 'data' or 'normal'")

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Fit the levels and send each value to the nearest."""
        if not values.size:
            return np.empty(0, np.uint8), Lloyd(np.zeros(1 << self.bits, np.float32))
        if self.fit == "normal":
            limit = np.finfo(np.float32).max
            table = normal_centroids(self.bits) * _root_mean_square(values)
            np.clip(table, -limit, limit, out=table)
            codes = _nearest_of(values, table)
        else:
            table = _fit(values, 1 << self.bits)
            codes = _nearest_of(values, table)
            table = _means(values, codes, table)
        return codes, Lloyd(table.astype(np.float32))


def nearest(values: Vector, borders: Vector) -> NDArray[np.uint8]:
    """Return how many borders, in rising order, lie below each value: the cell it is in."""
    if borders.size > _FEW:
        return np.searchsorted(borders, values).astype(np.uint8)
    codes: NDArray[np.uint8] = (values > borders[0]).view(np.uint8)
    above = np.empty(values.shape, np.bool_)
    for border in borders[1:]:
        np.greater(values, border, out=above)
        codes += above
    return codes


def borders_of(table: NDArray[np.float64]) -> Vector:
    """Return the middles between neighbouring levels."""
    middles: Vector = ((table[1:] + table[:-1]) / 2).astype(np.float32)
    return middles


def _nearest_of(values: Vector, table: NDArray[np.float64]) -> NDArray[np.uint8]:
    borders = borders_of(table)
    codes = np.empty(values.size, np.uint8)
    for index in chunks_of(values.size, 1):
        codes[index] = nearest(values[index], borders)
    return codes


def _fit(values: Vector, count: int) -> NDArray[np.float64]:
    """Run Lloyd's iteration on a sample, sorted so that a round costs a few searches."""
    stride = values.size // _SAMPLE | 1  # odd, so as not to walk along a column of a matrix
    sample = np.sort(values[::stride]).astype(np.float64)
    distinct = sample[np.concatenate([[True], sample[1:] != sample[:-1]])]
    if distinct.size <= count:
        return np.pad(distinct, (0, count - distinct.size), mode="edge")
    sums = np.concatenate([[0.0], np.cumsum(sample)])
    table = _companded(sample, count)
    for _ in range(_ROUNDS):
        inner = np.searchsorted(sample, (table[1:] + table[:-1]) / 2)
        edges = np.concatenate([[0], inner, [sample.size]])
        sizes = np.diff(edges)
        means = np.where(sizes, np.diff(sums[edges]) / np.maximum(sizes, 1), table)
        # Rounding of the sums may take the mean of equal values out of order.
        moved = np.maximum.accumulate(means)
        shift = np.abs(moved - table).max()
        table = moved
        if shift <= _TOLERANCE * (table[-1] - table[0]) / count:
            break
    return table


def _companded(sample: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Spread levels with the cube root of the density (Panter and Dite 1951), to start from.

    Between neighbouring ranks of equal mass the density is the inverse of the gap, so that
    ``density**(1/3) * gap`` is ``gap**(2/3)``.
    """
    ranks = np.linspace(0, sample.size - 1, min(_RANKS, sample.size)).astype(np.int64)
    points = sample[ranks]
    place = np.concatenate([[0.0], np.cumsum(np.diff(points) ** (2 / 3))])
    wanted = (np.arange(count) + 0.5) / count * place[-1]
    return np.asarray(np.interp(wanted, place, points), np.float64)


def _means(
    values: Vector, codes: NDArray[np.uint8], table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean of the values that share a code; of none, the old level."""
    sizes = np.zeros(table.size)
    sums = np.zeros(table.size)
    for index in chunks_of(values.size, 1):
        sizes += np.bincount(codes[index], minlength=table.size)
        sums += np.bincount(codes[index], weights=values[index], minlength=table.size)
    means = np.where(sizes > 0, sums / np.maximum(sizes, 1.0), table)
    ordered: NDArray[np.float64] = np.maximum.accumulate(means)
    return ordered


def _root_mean_square(values: Vector) -> float:
    total = sum(
        float(np.square(values[index], dtype=np.float64).sum())
        for index in chunks_of(values.size, 1)
    )
    return float((total / values.size) ** 0.5)
