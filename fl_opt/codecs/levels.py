"""What integer codes mean: the part of quantization that the receiver needs.

A quantizer turns values into unsigned integer codes and *levels*: a small description that
is written into the payload before the codes and gives the values back. Quantizers that
differ only in how they round share one kind of levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.update import Vector
from fl_opt.errors import PayloadError
from fl_opt.wire import Reader, Writer

CHUNK: Final = 1 << 16
"""Values converted together: small enough to stay in a core's second-level cache."""
MAX_BLOCK: Final = 1 << 20
_HALF_MAX_EXPONENT: Final = 15
EXPONENT_LIMIT: Final = 200
_MAX_FACTOR_EXPONENT: Final = 126


class Levels(Protocol):
    """Gives the meaning of codes."""

    wire_id: ClassVar[int]

    @property
    def width(self) -> int:
        """Bits of a code."""

    def write(self, writer: Writer) -> None:
        """Append the description."""

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read the levels of ``count`` values; PayloadError if they are wrong."""

    def num_codes(self, count: int) -> int:
        """Return how many codes stand for ``count`` values: as many, unless overridden."""
        return count

    def restore(self, codes: Unsigned) -> Vector:
        """Return the float32 values; PayloadError if a code has no meaning."""


@dataclass(frozen=True)
class Single(Levels):
    """IEEE 754 single precision: the code is the bit pattern."""

    wire_id: ClassVar[int] = 1
    width: ClassVar[int] = 32

    def write(self, writer: Writer) -> None:
        """Nothing to describe."""

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Nothing to read."""
        return cls()

    def restore(self, codes: Unsigned) -> Vector:
        """Reinterpret the codes, without a copy where they are 32 bits wide already."""
        return finite(codes.astype(np.uint32, copy=False).view(np.float32))


@dataclass(frozen=True)
class Half(Levels):
    """IEEE 754 half precision of values divided by ``2**exponent``.

    The exponent brings the largest magnitude to the top of the format's range, so that
    neither tiny nor huge updates fall out of it.
    """

    exponent: int

    wire_id: ClassVar[int] = 2
    width: ClassVar[int] = 16

    @classmethod
    def fit(cls, largest: float) -> Self:
        """Return the levels that suit values of at most this magnitude."""
        # frexp's mantissa lies in [0.5, 1): the scaled maximum stays below 2**15.
        return cls(math.frexp(largest)[1] - _HALF_MAX_EXPONENT if largest else 0)

    def write(self, writer: Writer) -> None:
        """Append the exponent as int16."""
        writer.array(np.array([self.exponent], np.int16))

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read the exponent."""
        exponent = int(reader.array(np.dtype(np.int16), 1)[0])
        if abs(exponent) > EXPONENT_LIMIT:
            raise PayloadError(f"malformed payload: exponent {exponent} is out of range")
        return cls(exponent)

    def restore(self, codes: Unsigned) -> Vector:
        """Scale the half-precision numbers back."""
        values = np.empty(codes.size, np.float32)
        half = codes.astype(np.uint16, copy=False).view(np.float16)
        with np.errstate(over="ignore", invalid="ignore"):
            for index in chunks_of(codes.size, 1):
                scale_exponent(half[index].astype(np.float32), self.exponent, values[index])
        return finite(values)


@dataclass(frozen=True)
class Brain(Levels):
    """bfloat16: the upper half of a single-precision number."""

    wire_id: ClassVar[int] = 3
    width: ClassVar[int] = 16

    def write(self, writer: Writer) -> None:
        """Nothing to describe."""

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Nothing to read."""
        return cls()

    def restore(self, codes: Unsigned) -> Vector:
        """Put sixteen zero bits behind each code."""
        bits = codes.astype(np.uint32)
        bits <<= 16
        return finite(bits.view(np.float32))


@dataclass(frozen=True)
class Uniform(Levels):
    """Evenly spaced levels around zero, with one step size for each block of values.

    Code ``c`` stands for ``(c - top) * step`` with ``top = 2**(bits - 1) - 1``.

    Parameters
    ----------
    bits : int
        From 2 to 16.
    block : int
        Number of consecutive values that share a step.
    steps : ndarray of float32, shape (ceil(count / block),)
    """

    bits: int
    block: int
    steps: Vector

    wire_id: ClassVar[int] = 4

    @property
    def width(self) -> int:
        """Bits of a code."""
        return self.bits

    @property
    def top(self) -> int:
        """Largest level, in steps."""
        return (1 << (self.bits - 1)) - 1

    def write(self, writer: Writer) -> None:
        """Append bits, block length and steps."""
        writer.byte(self.bits)
        writer.varint(self.block)
        writer.array(self.steps)

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read bits, block length and steps."""
        bits = reader.byte()
        if not 2 <= bits <= 16:
            raise PayloadError(f"malformed payload: {bits} bits where 2 to 16 are allowed")
        block = reader.varint(MAX_BLOCK)
        if block < 1:
            raise PayloadError("malformed payload: block length 0")
        steps = reader.array(np.dtype(np.float32), -(-count // block)).astype(np.float32)
        if steps.size and not steps.min() >= 0:
            raise PayloadError("malformed payload: a negative step or NaN")
        with np.errstate(over="ignore"):
            if not np.isfinite(steps * np.float32((1 << (bits - 1)) - 1)).all():
                raise PayloadError("malformed payload: a step is too large")
        return cls(bits, block, steps)

    def restore(self, codes: Unsigned) -> Vector:
        """Return ``(codes - top) * step`` of each value's block."""
        values = np.empty(codes.size, np.float32)
        highest = np.uint16(2 * self.top)
        for index in chunks_of(codes.size, self.block):
            part = codes[index]
            if part.max() > highest:
                raise PayloadError(f"malformed payload: a code above {highest}")
            out = values[index]
            out[...] = part
            out -= np.float32(self.top)
            scale_blocks(out, self.steps[index.start // self.block :], self.block, out)
        return values


@dataclass(frozen=True)
class Signs(Levels):
    """One magnitude for all: code 0 stands for ``+scale``, code 1 for ``-scale``."""

    scale: np.float32

    wire_id: ClassVar[int] = 5
    width: ClassVar[int] = 1

    def write(self, writer: Writer) -> None:
        """Append the scale as float32."""
        writer.array(np.array([self.scale], np.float32))

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read the scale."""
        scale = np.float32(reader.array(np.dtype(np.float32), 1)[0])
        if not 0.0 <= scale < np.inf:
            raise PayloadError(f"malformed payload: scale {scale} is not finite and positive")
        return cls(scale)

    def restore(self, codes: Unsigned) -> Vector:
        """Return plus or minus the scale."""
        return look_up(np.array([self.scale, -self.scale], np.float32), codes)


def chunks_of(size: int, block: int, target: int = CHUNK) -> list[slice]:
    """Cut ``range(size)`` into slices of about ``target`` entries at multiples of ``block``."""
    length = max(1, target // block) * block
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


def scale_exponent(values: Vector, exponent: int, out: Vector) -> None:
    """Write ``values * 2**exponent`` to ``out``: exact where the result is a normal number.

    In two steps where the factor itself lies beyond single precision.
    """
    if abs(exponent) <= _MAX_FACTOR_EXPONENT:
        np.multiply(values, np.float32(2.0**exponent), out=out)
        return
    first = exponent // 2
    np.multiply(values, np.float32(2.0**first), out=out)
    out *= np.float32(2.0 ** (exponent - first))


def scale_blocks(values: Vector, factors: NDArray[np.float32], block: int, out: Vector) -> None:
    """Write each block of ``values`` times its factor to ``out``; the last may be shorter."""
    whole = values.size // block
    end = whole * block
    np.multiply(
        values[:end].reshape(whole, block),
        factors[:whole, None],
        out=out[:end].reshape(whole, block),
    )
    if end < values.size:
        np.multiply(values[end:], factors[whole], out=out[end:])


def largest_magnitude(values: Vector) -> float:
    """Return the largest magnitude, 0 if there are no values."""
    return float(max(values.max(), -values.min())) if values.size else 0.0


def look_up(table: Vector, codes: Unsigned) -> Vector:
    """Return ``table[codes]``; codes must be below the length of the table.

    In chunks, since numpy turns an index into 8 bytes an entry; ``clip`` because that mode
    takes a third of the time of the one that checks.
    """
    values = np.empty(codes.size, np.float32)
    for index in chunks_of(codes.size, 1):
        np.take(table, codes[index], out=values[index], mode="clip")
    return values


def finite(values: Vector) -> Vector:
    """Return the values; PayloadError if one is NaN or infinite."""
    for index in chunks_of(values.size, 1):
        part = values[index]
        if not (math.isfinite(part.max()) and math.isfinite(part.min())):
            raise PayloadError("malformed payload: a value is not finite")
    return values
