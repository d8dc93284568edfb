"""Entropy-coded scalar quantization: the least distortion for a given number of bytes.

Values are rounded to multiples of one step, with a wide zone around zero, and the entropy
coder makes bytes of it. At high rates that is within a quarter of a bit of what no code can
beat, at low rates within less (Gish and Pierce 1968; Sullivan 1996, "Efficient scalar
quantization of exponential and Laplacian random variables").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs import entropy
from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.levels import Levels, chunks_of, largest_magnitude, look_up
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import Reader, Writer, write_varint

ROUNDING: Final = 0.375
"""Added before a magnitude in steps is cut off to a whole number: less than half, since small
values are more frequent than large ones within a bin."""
_MAX_TOP: Final = (1 << (entropy.MAX_WIDTH - 1)) - 1
MAX_MULTIPLE: Final = _MAX_TOP - 1
"""Largest multiple of a step that has a code; a step that is too fine for that is widened."""
_MAX_MEANS: Final = 8
_MEAN_UNIT: Final = 256
"""Means of bins are sent in parts of a step: -128 to 127 of them from the multiple."""
_FRAME: Final = 13
"""Bytes of a dense payload beside levels and codes, without its two lengths."""
_LEVELS_BYTES: Final = 6
_TINY: Final = float(np.finfo(np.float32).tiny)
_LARGEST: Final = float(np.finfo(np.float32).max)
_TARGET: Final = 0.985
"""Where the search for a rate may stop: at this share of it."""
_MAX_TRIALS: Final = 24
_SAMPLE_CHUNKS: Final = 64
_SAMPLE: Final = 1 << 16


@dataclass(frozen=True)
class Multiples(Levels):
    """Multiples of a step, moved to the means of the values that they stand for.

    Code ``c`` stands for ``sign * (k + mean[k] / 256) * step`` with ``k = |c - top|`` and
    ``top = 2**(bits - 1) - 1``; the last mean serves all larger ``k``.

    Parameters
    ----------
    bits : int
        Of a code, from 2 to 16.
    step : float32
    means : ndarray of int8, shape (n,), n from 1 to 8
        For ``k`` of 1 to ``n``.
    """

    bits: int
    step: np.float32
    means: NDArray[np.int8]

    wire_id: ClassVar[int] = 9

    @property
    def width(self) -> int:
        """Bits of a code."""
        return self.bits

    def write(self, writer: Writer) -> None:
        """Append bits, step, number of means and means."""
        writer.byte(self.bits)
        writer.array(np.array([self.step], np.float32))
        writer.byte(self.means.size)
        writer.array(self.means)

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read what :meth:`write` wrote."""
        bits = reader.byte()
        if not 2 <= bits <= entropy.MAX_WIDTH:
            raise PayloadError(f"malformed payload: codes of {bits} bits")
        step = np.float32(reader.array(np.dtype(np.float32), 1)[0])
        if not 0.0 <= step <= _LARGEST:
            raise PayloadError(f"malformed payload: step {step}")
        num_means = reader.byte()
        if not 1 <= num_means <= _MAX_MEANS:
            raise PayloadError(f"malformed payload: {num_means} means of bins")
        means = reader.array(np.dtype(np.int8), num_means).astype(np.int8)
        return cls(bits, step, means)

    def restore(self, codes: Unsigned) -> Vector:
        """Look each code up."""
        top = (1 << (self.bits - 1)) - 1
        multiples = np.arange(1, top + 2)
        shifts = self.means[np.minimum(multiples, self.means.size) - 1] / _MEAN_UNIT
        exact = (multiples + shifts) * float(self.step)
        magnitudes = np.minimum(exact, _LARGEST).astype(np.float32)
        table = np.concatenate([-magnitudes[-2::-1], np.zeros(1, np.float32), magnitudes])
        return look_up(table, codes)


@dataclass(frozen=True)
class Ecsq:
    """Uniform steps with a dead zone, bin means, and an entropy code.

    Parameters
    ----------
    rate : float
        Most bits a value that the whole payload takes (without positions, after a
        selection). The step is found for it: the rate is met within 2% and never exceeded, as
        far as a single entry and the frame of some 40 bytes allow, and unless values
        are so few or so alike that less is enough.
    step : float
        The step itself, in place of a rate.
    """

    rate: float = 0.0
    step: float = 0.0

    name: ClassVar[str] = "ecsq"
    needs_selection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (0.0 <= self.rate <= 16.0 and 0.0 <= self.step < math.inf):
            raise ConfigError(
                f"rate = {self.rate}, step = {self.step}: a rate is above 0 and at most 16, "
                "a step above 0 and finite"
            )
        if (self.rate > 0.0) == (self.step > 0.0):
            raise ConfigError("'ecsq' takes a rate in bits a value, such as 1.0, or a step")

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Find the step, round, and take the means of the bins."""
        largest = largest_magnitude(values)
        # Not more codes than the entropy coder takes, and a step that has an inverse.
        finest = max(largest / MAX_MULTIPLE, _TINY)
        if self.step:
            step = max(self.step, finest)
            codes, width = _round(values, step, largest)
        else:
            frame = _FRAME + 2 * len(write_varint(values.size))
            budget = math.floor(self.rate * values.size / 8) - frame
            step, codes, width = _meet(values, budget, finest, largest)
        return codes, Multiples(width, np.float32(step), _means(values, codes, width, step))


def _meet(
    values: Vector, budget: int, finest: float, largest: float
) -> tuple[float, Unsigned, int]:
    """Find step and codes whose bytes reach the budget but do not exceed it."""
    # With the coarsest step the largest value is still there.
    coarsest = max(min(largest / (1.0 - ROUNDING) * (1.0 - 1e-6), _LARGEST), finest)
    kept: list[tuple[float, Unsigned, int]] = []

    def cost(step: float) -> int:
        codes, width = _round(values, step, largest)
        num_bytes = _num_bytes(codes, width)
        if num_bytes <= budget and (not kept or step < kept[0][0]):
            kept[:] = [(step, codes, width)]
        return num_bytes

    sample = _sample(values)
    guess = math.sqrt(finest * coarsest)
    if sample.size < values.size:
        guess = _search(
            lambda step: _num_bytes(*_round(sample, step, largest)),
            budget * sample.size / values.size,
            (finest, guess, coarsest),
        )
    _search(cost, budget, (finest, guess, coarsest))
    if kept:
        return kept[0]
    codes, width = _round(values, coarsest, largest)
    return coarsest, _thin_out(codes, width, budget), width


def _search(
    cost: Callable[[float], int], budget: float, steps: tuple[float, float, float]
) -> float:
    """Find a step for which the bytes are close to the budget, from below.

    The logarithm of the bytes is nearly linear in that of the step: the search goes along
    the line through the bounds of the bracket, and halves it now and then.
    """
    low, step, high = steps
    costs: dict[float, int] = {}
    aim = budget * (1.0 + _TARGET) / 2.0
    for trial in range(_MAX_TRIALS):
        step = high if budget <= 0 else min(max(step, low), high)
        if step in costs:
            break
        costs[step] = cost(step)
        if _TARGET * budget <= costs[step] <= budget:
            break
        if costs[step] > budget:
            low = step
        else:
            high = step
        if low in costs and high in costs:
            slope = math.log(costs[low] / costs[high])
            share = (
                math.log(aim / costs[high]) / slope if slope > 0.0 and trial % 3 < 2 else 0.5
            )
            step = high * (low / high) ** min(max(share, 0.02), 0.98)
        else:
            step *= max(costs[step], 1) / max(aim, 1.0)
    return high if step not in costs or costs[step] > budget else step


def _round(values: Vector, step: float, largest: float) -> tuple[Unsigned, int]:
    """Return codes, and their width."""
    top = math.floor(np.float32(largest) / np.float32(step) + ROUNDING)
    width = max(2, top.bit_length() + 1)
    zero = np.float32((1 << (width - 1)) - 1)
    codes: Unsigned = np.empty(values.size, np.uint8 if width <= 8 else np.uint16)
    for index in chunks_of(values.size, 1):
        part = values[index]
        scaled = np.abs(part)
        scaled /= np.float32(step)
        scaled += np.float32(ROUNDING)
        np.floor(scaled, out=scaled)
        np.copysign(scaled, part, out=scaled)
        scaled += zero
        codes[index] = scaled
    return codes, width


def _num_bytes(codes: Unsigned, width: int) -> int:
    """Return the bytes of levels and codes."""
    levels = _LEVELS_BYTES + min(_MAX_MEANS, 1 << (width - 1))
    return levels + len(entropy.encode_codes(codes, width))


def _sample(values: Vector) -> Vector:
    """Take chunks from all over large vectors."""
    if values.size <= 2 * _SAMPLE:
        return values
    length = _SAMPLE // _SAMPLE_CHUNKS
    starts = np.linspace(0, values.size - length, _SAMPLE_CHUNKS).astype(np.int64)
    return np.concatenate([values[start : start + length] for start in starts])


def _thin_out(codes: Unsigned, width: int, budget: int) -> Unsigned:
    """Keep as many codes from the front as the budget allows, one that is not zero at least.

    For values that are so alike that the coarsest step, which keeps the largest of them,
    keeps more than can be paid for.
    """
    zero = (1 << (width - 1)) - 1
    places = np.flatnonzero(codes != zero)
    low, high = 1, places.size  # keep low of them at least
    while high - low > 1:
        middle = (low + high) // 2
        trial = codes.copy()
        trial[places[middle:]] = zero
        if _num_bytes(trial, width) <= budget:
            low = middle
        else:
            high = middle
    codes[places[low:]] = zero
    return codes


def _means(values: Vector, codes: Unsigned, width: int, step: float) -> NDArray[np.int8]:
    """Return how far the mean of each bin is from its multiple, in parts of a step."""
    zero = (1 << (width - 1)) - 1
    sums = np.zeros(_MAX_MEANS + 1)
    counts = np.zeros(_MAX_MEANS + 1, np.int64)
    for index in chunks_of(values.size, 1):
        sent = np.flatnonzero(codes[index] != zero)
        multiples = np.abs(codes[index][sent].astype(np.int32) - zero)
        shifts = np.abs(values[index][sent]) / np.float32(step) - multiples
        bins = np.minimum(multiples, _MAX_MEANS)
        sums += np.bincount(bins, shifts, minlength=_MAX_MEANS + 1)
        counts += np.bincount(bins, minlength=_MAX_MEANS + 1)
    used = max(1, int(np.flatnonzero(counts)[-1])) if counts.any() else 1
    means = sums[1 : used + 1] / np.maximum(counts[1 : used + 1], 1)
    return np.clip(np.rint(means * _MEAN_UNIT), -128, 127).astype(np.int8)
