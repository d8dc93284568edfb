"""A random rotation that is quick, needs no padding and is the same, bit for bit, everywhere.

The vector is cut into windows of ``w`` entries, the largest power of four up to 4,096 that
fits into it. One *pass* flips signs at random and applies the orthonormal Hadamard matrix
``H_w / sqrt(w)`` within each window. A rotation is a pass over the first window alone, one over
the last ``w`` entries alone, one over all windows as they lie from the front of the vector, and
one over all windows as they lie to its end. So the result has as many entries as the vector,
where padding to whole windows could double it, and each entry is mixed at least twice. Twice,
since after one pass two large entries among small ones still show as sums of two; quantizing
those would be biased.

Sylvester's ``H_w`` is the Kronecker product of smaller ones: sums along each axis of the window
seen as a 16 by 16 by 16 cube, each a product with ``H_16``. Butterflies would need a quarter
of the operations, but go through the cache four times as often.

Floating-point sums depend on their order, and so on the machine's BLAS. Here they do not:
before a pass each window is rounded to multiples of about ``2**-23`` of the sum of its
magnitudes, which makes all sums of it, in any order, integers of at most ``2**24`` units:
exact in single precision. What is rounded gets a dither of up to half a unit first, so that
equal entries (a constant vector, or the levels that are rotated back) are not all rounded the
same way. The noise of this is below ``4e-7`` of a window's energy for each pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.update import Vector

_MAX_WINDOW: Final = 4096
_PASSES: Final = 4
_SUM_BITS: Final = 23
"""One less than single precision can hold, for what rounding adds to a sum."""
_FACTOR: Final = 16
_BATCH: Final = 1 << 18
_LEAST_EXPONENT: Final = -100
_PURPOSE: Final = 1 << 64
"""Upper half of the Philox key: keeps these bits apart from those of other uses of a seed."""


@dataclass(frozen=True)
class Rotation:
    """An orthogonal transform of vectors of ``count`` entries, described by a seed.

    Parameters
    ----------
    count : int
        Entries of the vector.
    seed : int
        In [0, 2**64). The signs are the raw outputs of Philox4x64-10 with the key
        ``seed + 2**64`` and a counter from zero, lowest bit first, a set bit for minus, for
        one pass after the other; all windows of a pass share them. The outputs that
        follow, as pairs of signed 32-bit numbers over ``2**32``, lower half first, are the
        dither of all windows.
    """

    count: int
    seed: int

    @property
    def window(self) -> int:
        """Entries that are mixed with each other in a pass."""
        return window_for(self.count)

    @property
    def head(self) -> int:
        """Entries before the first window of the last pass."""
        return self.count % self.window

    def forward(self, values: Vector) -> None:
        """Rotate finite values, at most ``2**60`` in magnitude, in place."""
        all_signs, dither = self._random()
        for part, signs in zip(self._windows(values), all_signs, strict=True):
            for rows, work, spare in _batches(part):
                np.multiply(rows, signs, out=work)
                _transform(work, spare, dither, out=rows)

    def inverse(self, values: Vector) -> None:
        """Undo :meth:`forward`, in place."""
        all_signs, dither = self._random()
        passes = list(zip(self._windows(values), all_signs, strict=True))
        for part, signs in reversed(passes):
            for rows, work, spare in _batches(part):
                _transform(rows, spare, dither, out=work)
                np.multiply(work, signs, out=rows)

    def _windows(self, values: Vector) -> list[Vector]:
        """Return the windows of each pass, one a row: views of the values."""
        end = self.count - self.head
        parts = (
            values[: self.window],
            values[self.count - self.window :],
            values[:end],
            values[self.head :],
        )
        return [part.reshape(-1, self.window) for part in parts]

    def _random(self) -> tuple[Vector, Vector]:
        """Return plus or minus one, shape ``(passes, window)``, and the dither."""
        stream = np.random.Philox(key=self.seed + _PURPOSE)
        octets = _little(stream.random_raw(-(-_PASSES * self.window // 64)), np.uint8)
        bits = np.unpackbits(octets, count=_PASSES * self.window, bitorder="little")
        signs = 1 - 2 * bits.reshape(_PASSES, self.window).astype(np.float32)
        halves = _little(stream.random_raw((self.window + 1) // 2), np.int32)
        return signs, halves[: self.window].astype(np.float32) * np.float32(2.0**-32)


def _little(words: NDArray[np.uint64], dtype: type[Any]) -> NDArray[Any]:
    """Cut words into smaller numbers, lowest bits first."""
    small = np.dtype(dtype).newbyteorder("<")
    return words.astype("<u8", copy=False).view(small)


def window_for(count: int) -> int:
    """Return the largest power of four up to ``count`` and 4,096; 1 for no entries."""
    return min(_MAX_WINDOW, 1 << ((max(1, count).bit_length() - 1) & ~1))


def _batches(rows: Vector) -> Iterator[tuple[Vector, Vector, Vector]]:
    """Cut rows into groups that stay in the cache; with room for two more of each."""
    step = max(1, _BATCH // rows.shape[1])
    work, spare = np.empty((2, min(step, len(rows)), rows.shape[1]), np.float32)
    for start in range(0, len(rows), step):
        batch = rows[start : start + step]
        yield batch, work[: len(batch)], spare[: len(batch)]


def _transform(rows: Vector, spare: Vector, dither: Vector, out: Vector) -> None:
    """Write each row times the orthonormal Hadamard matrix, its own inverse, to ``out``.

    ``rows`` is changed, and ``out`` may be the same memory.
    """
    size = rows.shape[1]
    total = np.abs(rows, out=spare)
    while total.shape[1] > 1:  # a sum in an order of our own: the same everywhere
        half = total.shape[1] // 2
        total = np.add(total[:, :half], total[:, half:], out=total[:, :half])
    exponents = np.frexp(total[:, 0])[1]
    np.maximum(exponents, _LEAST_EXPONENT, out=exponents)  # far below everything else: to zero
    unit = np.ldexp(np.float32(1.0), exponents - _SUM_BITS)
    np.multiply(rows, (1 / unit)[:, None], out=rows)
    rows += dither
    np.rint(rows, out=rows)
    sums, other = rows, spare
    inner = size
    while inner > 1:
        factor = min(_FACTOR, inner)
        inner //= factor
        # Small products one by one: quick, and never spread over threads.
        if inner > 1:
            shape = (-1, factor, inner)
            np.matmul(_hadamard(factor), sums.reshape(shape), out=other.reshape(shape))
        else:
            shape = (-1, size // factor, factor)
            np.matmul(sums.reshape(shape), _hadamard(factor), out=other.reshape(shape))
        sums, other = other, sums
    np.multiply(sums, (unit / np.float32(size**0.5))[:, None], out=out)


@lru_cache(maxsize=8)
def _hadamard(side: int) -> NDArray[np.float32]:
    """Sylvester's matrix of plus and minus ones."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
