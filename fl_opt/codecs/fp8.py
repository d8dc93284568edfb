"""Eight-bit floating point: e4m3 and e5m2, scaled by a power of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, Self

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.levels import (
    CHUNK,
    EXPONENT_LIMIT,
    Levels,
    chunks_of,
    finite,
    largest_magnitude,
    look_up,
    scale_exponent,
)
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import Reader, Writer


@dataclass(frozen=True)
class _Format:
    """One of the two formats.

    Parameters
    ----------
    dtype : numpy dtype
    top : int
        The largest magnitude is brought below ``2**top``.
    limit : float
        Largest number of the format below that.
    """

    dtype: np.dtype[Any]
    top: int
    limit: float


_FORMATS: Final = {
    "e4m3": _Format(np.dtype(ml_dtypes.float8_e4m3fn), 8, 240.0),
    "e5m2": _Format(np.dtype(ml_dtypes.float8_e5m2), 15, 28672.0),
}
_NAMES: Final = tuple(_FORMATS)


@dataclass(frozen=True)
class Eight(Levels):
    """Numbers of one of the formats, times ``2**exponent``."""

    format: str
    exponent: int

    wire_id: ClassVar[int] = 6
    width: ClassVar[int] = 8

    def write(self, writer: Writer) -> None:
        """Append the format as a byte and the exponent as int16."""
        writer.byte(_NAMES.index(self.format))
        writer.array(np.array([self.exponent], np.int16))

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read format and exponent."""
        index = reader.byte()
        if index >= len(_NAMES):
            raise PayloadError(f"malformed payload: unknown 8-bit format {index}")
        exponent = int(reader.array(np.dtype(np.int16), 1)[0])
        if abs(exponent) > EXPONENT_LIMIT:
            raise PayloadError(f"malformed payload: exponent {exponent} is out of range")
        return cls(_NAMES[index], exponent)

    def restore(self, codes: Unsigned) -> Vector:
        """Look the codes up in a table of all 256 numbers."""
        table = np.arange(256, dtype=np.uint8).view(_FORMATS[self.format].dtype)
        numbers = table.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            scale_exponent(numbers, self.exponent, numbers)
        return finite(look_up(numbers, codes))


@dataclass(frozen=True)
class Fp8:
    """Eight-bit floating point, scaled by a power of two so that the largest value fits.

    Micikevicius et al. 2022, "FP8 formats for deep learning"; in ml_dtypes the formats are
    called ``float8_e4m3fn`` and ``float8_e5m2``. Rounded to nearest even.

    Parameters
    ----------
    format : {"e4m3", "e5m2"}
        3 bits of mantissa over 15 powers of two, or 2 bits over 30; below those, evenly
        spaced down to zero.
    """

    format: Literal["e4m3", "e5m2"] = "e4m3"

    name: ClassVar[str] = "fp8"
    needs_selection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise ConfigError(f"format = {self.format!r} is not 'e4m3' or 'e5m2'")

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Scale and round to nearest even."""
        target = _FORMATS[self.format]
        largest = largest_magnitude(values)
        exponent = math.frexp(largest)[1] - target.top if largest else 0
        table = _rounded(self.format)
        codes = np.empty(values.size, np.uint8)
        buffer = np.empty(min(CHUNK, values.size), np.float32)
        for index in chunks_of(values.size, 1):
            scaled = buffer[: index.stop - index.start]
            scale_exponent(values[index], -exponent, scaled)
            # The largest may not round up to the next power of two: that could be infinity.
            np.clip(scaled, -target.limit, target.limit, out=scaled)
            codes[index] = table[_upper_half(scaled)]
        return codes, Eight(self.format, exponent)


def _upper_half(values: Vector) -> NDArray[np.uint32]:
    """Return the upper 16 bits of each number, the last of them set if any below is.

    Rounding this (to odd, as it is called) once more to fewer bits gives the same as rounding
    the number itself.
    """
    bits = values.view(np.uint32)
    upper = bits >> np.uint32(16)
    upper |= (bits & np.uint32(0xFFFF)) != 0
    return upper


@lru_cache(maxsize=2)
def _rounded(name: str) -> NDArray[np.uint8]:
    """Return the code for each of the 65,536 upper halves of a single-precision number.

    The conversion of a whole vector by ml_dtypes takes six times as long.
    """
    upper = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    with np.errstate(over="ignore", invalid="ignore"):
        return upper.view(np.float32).astype(_FORMATS[name].dtype).view(np.uint8)
