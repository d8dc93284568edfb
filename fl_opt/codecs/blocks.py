"""Quantizers that round each block of values to multiples of one step.

They differ in the step and in how they round, and share the levels
:class:`fl_opt.codecs.levels.Uniform`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs import levels
from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.levels import Levels
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError

_MAX_TOP: Final = (1 << 15) - 1
_CHUNK: Final = 1 << 18
"""Values rounded together: enough for the cost of the calls to be small beside the work's."""


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
        _check_block(self.block)
        if self.rounding not in ("nearest", "stochastic"):
            raise ConfigError(f"rounding = {self.rounding!r} is not 'nearest' or 'stochastic'")

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Divide by each block's step and round."""
        top = (1 << (self.bits - 1)) - 1
        noise = _Noise(seed) if self.rounding == "stochastic" else None
        return _to_blocks(
            values,
            self.bits,
            self.block,
            lambda part: _block_max(part, self.block) / top,
            noise,
        )


@dataclass(frozen=True)
class Qsgd:
    """Stochastic rounding to multiples of each block's norm over ``levels``: unbiased.

    QSGD (Alistarh et al. 2017, "QSGD: communication-efficient SGD via gradient quantization
    and encoding"): ``||v||_2 * sign(v_i) * xi_i``, where ``xi_i`` is one of the two
    neighbours of ``|v_i| / ||v||_2`` among ``0, 1/s, ..., 1`` with the mean that fits.
    The error is at most ``min(n/s**2, sqrt(n)/s) * ||v||_2**2`` for a block of ``n`` values.

    Parameters
    ----------
    levels : int
        Steps between zero and the norm: s, from 1 to 32767. A code takes
        ``ceil(log2(2 * levels + 1))`` bits before entropy coding.
    block : int
        Number of consecutive values that share a norm; each costs 4 bytes. The paper's
        buckets of 512 keep the error bounded however long the vector is.
    """

    levels: int = 7
    block: int = 512

    name: ClassVar[str] = "qsgd"
    needs_selection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= _MAX_TOP:
            raise ConfigError(f"levels = {self.levels} is not between 1 and {_MAX_TOP}")
        _check_block(self.block)

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Divide by each block's norm over ``levels`` and round at random."""
        bits = self.levels.bit_length() + 1
        return _to_blocks(
            values,
            bits,
            self.block,
            lambda part: _block_norm(part, self.block) / self.levels,
            _Noise(seed),
        )


@dataclass(frozen=True)
class TernGrad:
    """``max|v| * sign(v_i) * b_i`` with ``P(b_i = 1) = |v_i| / max|v|``: unbiased, 3 levels.

    TernGrad (Wen et al. 2017, "TernGrad: ternary gradients to reduce communication in
    distributed deep learning"). 2 bits a value, fewer where zeros prevail and
    the coder sees it.

    Parameters
    ----------
    block : int
        Number of consecutive values that share a maximum; each costs 4 bytes. The paper takes
        one for each layer; shorter blocks err less.
    """

    block: int = 512

    name: ClassVar[str] = "terngrad"
    needs_selection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_block(self.block)

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Round at random to minus the maximum, zero or the maximum of each block."""
        return Uniform(2, self.block, "stochastic").quantize(values, seed)


class _Noise:
    """Numbers spread evenly over [-1/2, 1/2]: what stochastic rounding adds before it rounds.

    Only the sender draws them, so they need to be quick more than anything else.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.SFC64(seed)

    def draw(self, count: int) -> Vector:
        """Return ``count`` numbers."""
        words = self._bits.random_raw((count + 1) // 2).view(np.int32)[:count]
        noise = words.astype(np.float32)
        noise *= np.float32(2.0**-32)
        return noise


def _to_blocks(
    values: Vector,
    bits: int,
    block: int,
    steps_of: Callable[[Vector], NDArray[np.floating[Any]]],
    noise: _Noise | None,
) -> tuple[Unsigned, levels.Uniform]:
    """Round each block of values to multiples of its step.

    ``steps_of`` gives the steps of a run of whole blocks (the very last may be shorter).
    """
    top = (1 << (bits - 1)) - 1
    # Rounded up, a step of the largest numbers would put the top level beyond infinity.
    largest_step = np.nextafter(np.finfo(np.float32).max / np.float32(top), np.float32(0))
    steps = np.empty(-(-values.size // block), np.float32)
    codes: Unsigned = np.empty(values.size, np.uint8 if bits <= 8 else np.uint16)
    chunks = levels.chunks_of(values.size, block, _CHUNK)
    # One buffer for all chunks, since fresh memory costs more than what is done with it.
    buffer = np.empty(chunks[0].stop if chunks else 0, np.float32)
    for index in chunks:
        part = values[index]
        scaled = buffer[: part.size]
        first = index.start // block
        step = steps[first : first + -(-part.size // block)]
        np.minimum(steps_of(part), largest_step, out=step, casting="same_kind")
        # A step that is subnormal has no usable inverse: such a block becomes zero.
        step[step < np.finfo(np.float32).tiny] = 0.0
        inverse = np.divide(1.0, step, out=np.zeros_like(step), where=step > 0)
        levels.scale_blocks(part, inverse, block, scaled)
        if noise is not None:
            scaled += noise.draw(scaled.size)
            np.clip(scaled, -top, top, out=scaled)  # rounding of the inverse may overshoot
        np.rint(scaled, out=scaled)
        scaled += top
        codes[index] = scaled
    return codes, levels.Uniform(bits, block, steps)


def _block_max(values: Vector, block: int) -> Vector:
    """Return the largest magnitude of each block."""
    starts = np.arange(0, values.size, block)
    # Magnitudes would have to be written first, and push the values out of the cache.
    highest, lowest = np.maximum.reduceat(values, starts), np.minimum.reduceat(values, starts)
    largest: Vector = np.maximum(highest, -lowest)
    return largest


def _block_norm(values: Vector, block: int) -> NDArray[np.float64]:
    """Return the Euclidean norm of each block; squares of single precision need double."""
    squares = np.square(values, dtype=np.float64)
    norms: NDArray[np.float64] = np.sqrt(
        np.add.reduceat(squares, np.arange(0, values.size, block))
    )
    return norms


def _check_block(block: int) -> None:
    if not 1 <= block <= levels.MAX_BLOCK:
        raise ConfigError(f"block = {block} is not between 1 and {levels.MAX_BLOCK}")
