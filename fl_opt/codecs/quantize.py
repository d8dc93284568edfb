"""Second stage: how each selected value is expressed.

A quantizer returns unsigned integer codes and the :class:`~fl_opt.codecs.levels.Levels`
that give them a meaning. Values are finite: selection has checked them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol

import numpy as np

from fl_opt.codecs import levels
from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError

_HALF_TOP: Final = 32752.0
"""Largest half-precision number below 2**15."""


class Quantizer(Protocol):
    """Turns values into codes."""

    name: ClassVar[str]
    needs_selection: ClassVar[bool]

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, levels.Levels]:
        """Return one code a value, and what the codes mean."""


@dataclass(frozen=True)
class Fp32:
    """Single precision: exact."""

    name: ClassVar[str] = "fp32"
    needs_selection: ClassVar[bool] = False

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, levels.Levels]:
        """Reinterpret the bits, without a copy."""
        return values.view(np.uint32), levels.Single()


@dataclass(frozen=True)
class Fp16:
    """Half precision, scaled by a power of two so that the largest value fits: 16 bits."""

    name: ClassVar[str] = "fp16"
    needs_selection: ClassVar[bool] = False

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, levels.Levels]:
        """Scale and round to nearest even."""
        half = levels.Half.fit(_largest(values))
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

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, levels.Levels]:
        """Round the upper half of each bit pattern."""
        codes = np.empty(values.size, np.uint16)
        for index in levels.chunks_of(values.size, 1):
            bits = values[index].view(np.uint32)
            rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & np.uint32(1))) >> 16
            rounded -= (rounded & np.uint32(0x7FFF)) == np.uint32(0x7F80)  # not up to infinity
            codes[index] = rounded
        return codes, levels.Brain()


@dataclass(frozen=True)
class Uniform:
    """Evenly spaced levels between plus and minus the largest magnitude of each block.

    Parameters
    ----------
    bits : int
        Bits a value, from 2 to 16.
    block : int
        Number of consecutive values that share a scale; each costs 4 bytes.
    rounding : {"nearest", "stochastic"}
        Stochastic rounding is unbiased: up with a probability of the fraction left over.
        Its randomness comes from the seed of the encode alone.
    """

    bits: int = 8
    block: int = 256
    rounding: Literal["nearest", "stochastic"] = "nearest"

    name: ClassVar[str] = "uniform"
    needs_selection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ConfigError(f"bits = {self.bits} is not between 2 and 16")
        if not 1 <= self.block <= levels.MAX_BLOCK:
            raise ConfigError(f"block = {self.block} is not between 1 and {levels.MAX_BLOCK}")
        if self.rounding not in ("nearest", "stochastic"):
            raise ConfigError(f"rounding = {self.rounding!r} is not 'nearest' or 'stochastic'")

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, levels.Levels]:
        """Divide by each block's step and round."""
        top = (1 << (self.bits - 1)) - 1
        # Rounded up, a step of the largest numbers would put the top level beyond infinity.
        largest_step = np.nextafter(np.finfo(np.float32).max / np.float32(top), np.float32(0))
        steps = np.empty(-(-values.size // self.block), np.float32)
        codes: Unsigned = np.empty(values.size, np.uint8 if self.bits <= 8 else np.uint16)
        noise = np.random.Generator(np.random.Philox(seed)) if self._stochastic else None
        for index in levels.chunks_of(values.size, self.block):
            scaled = np.abs(values[index])
            first = index.start // self.block
            step = steps[first : first + -(-scaled.size // self.block)]
            np.divide(
                np.maximum.reduceat(scaled, np.arange(0, scaled.size, self.block)),
                top,
                out=step,
            )
            np.minimum(step, largest_step, out=step)
            # A step that is subnormal has no usable inverse: such a block becomes zero.
            step[step < np.finfo(np.float32).tiny] = 0.0
            inverse = np.divide(1.0, step, out=np.zeros_like(step), where=step > 0)
            np.copyto(scaled, values[index])
            levels.scale_blocks(scaled, inverse, self.block)
            if noise is None:
                np.rint(scaled, out=scaled)
            else:
                scaled += noise.random(scaled.size, np.float32)
                np.floor(scaled, out=scaled)
            np.clip(scaled, -top, top, out=scaled)  # rounding of the inverse may overshoot
            scaled += top
            codes[index] = scaled
        return codes, levels.Uniform(self.bits, self.block, steps)

    @property
    def _stochastic(self) -> bool:
        return self.rounding == "stochastic"


@dataclass(frozen=True)
class Ternary:
    """The sign of each kept value times the mean magnitude of the kept ones: 1 bit.

    With the entries that are not kept this makes three levels, -mu, 0 and mu: sparse ternary
    compression (Sattler et al. 2019, "Robust and communication-efficient federated
    learning from non-i.i.d. data", algorithm 1).
    """

    name: ClassVar[str] = "ternary"
    needs_selection: ClassVar[bool] = True

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, levels.Levels]:
        """Take signs, and the mean of the magnitudes."""
        mean = np.abs(values).mean(dtype=np.float64) if values.size else 0.0
        return np.signbit(values).view(np.uint8), levels.Signs(np.float32(mean))


def _largest(values: Vector) -> float:
    return float(max(values.max(), -values.min())) if values.size else 0.0
