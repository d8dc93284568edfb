"""Second stage: how each selected value is expressed.

A quantizer returns unsigned integer codes and the :class:`~fl_opt.codecs.Levels`
that give them a meaning. Values are finite: selection has checked them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np

from fl_opt.codecs import levels
from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.levels import Levels
from fl_opt.codecs.update import Vector

_HALF_TOP: Final = 32752.0
"""Largest half-precision number below 2**15."""


class Quantizer(Protocol):
    """Turns values into codes."""

    name: ClassVar[str]
    needs_selection: ClassVar[bool]

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Return one code a value, and what the codes mean."""


@dataclass(frozen=True)
class Fp32:
    """Single precision: exact."""

    name: ClassVar[str] = "fp32"
    needs_selection: ClassVar[bool] = False

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Reinterpret the bits, without a copy."""
        return values.view(np.uint32), levels.Single()


@dataclass(frozen=True)
class Fp16:
    """Half precision, scaled by a power of two so that the largest value fits: 16 bits."""

    name: ClassVar[str] = "fp16"
    needs_selection: ClassVar[bool] = False

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Scale and round to nearest even."""
        half = levels.Half.fit(levels.largest_magnitude(values))
        codes = np.empty(values.size, np.float16)
        buffer = np.empty(min(levels.CHUNK, values.size), np.float32)
        for index in levels.chunks_of(values.size, 1):
            scaled = buffer[: index.stop - index.start]
            levels.scale_exponent(values[index], -half.exponent, scaled)
            # The largest may not round up to the next power of two: that could be infinity.
            codes[index] = np.clip(scaled, -_HALF_TOP, _HALF_TOP, out=scaled)
        return codes.view(np.uint16), half


@dataclass(frozen=True)
class Bf16:
    """bfloat16, rounded to nearest even: 16 bits, the range of single precision."""

    name: ClassVar[str] = "bf16"
    needs_selection: ClassVar[bool] = False

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Round the upper half of each bit pattern."""
        codes = np.empty(values.size, np.uint16)
        for index in levels.chunks_of(values.size, 1):
            bits = values[index].view(np.uint32)
            rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & np.uint32(1))) >> 16
            rounded -= (rounded & np.uint32(0x7FFF)) == np.uint32(0x7F80)  # not up to infinity
            codes[index] = rounded
        return codes, levels.Brain()


@dataclass(frozen=True)
class Sign:
    """The sign of each value times the mean magnitude: 1 bit.

    ``(||v||_1 / n) * sign(v)``, the compressor of EF-signSGD (Karimireddy et al. 2019, "Error
    feedback fixes SignSGD and other gradient compression schemes"): biased, made for error
    feedback. One bit has no zero: a zero counts as positive, or as negative where its sign bit
    is set, and error feedback takes the mean magnitude back from it in the next round.
    """

    name: ClassVar[str] = "sign"
    needs_selection: ClassVar[bool] = False

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Take signs, and the mean of the magnitudes."""
        return _signs(values)


@dataclass(frozen=True)
class Ternary:
    """The sign of each kept value times the mean magnitude of the kept ones: 1 bit.

    With the entries that are not kept this makes three levels, -mu, 0 and mu: sparse ternary
    compression (Sattler et al. 2019, "Robust and communication-efficient federated
    learning from non-i.i.d. data", algorithm 1).
    """

    name: ClassVar[str] = "ternary"
    needs_selection: ClassVar[bool] = True

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Take signs, and the mean of the magnitudes."""
        return _signs(values)


def _signs(values: Vector) -> tuple[Unsigned, Levels]:
    total = sum(
        float(np.abs(values[index]).sum(dtype=np.float64))
        for index in levels.chunks_of(values.size, 1)
    )
    mean = np.float32(total / max(1, values.size))
    return np.signbit(values).view(np.uint8), levels.Signs(mean)
