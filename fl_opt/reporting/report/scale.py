"""From values to places on an axis, and the values that are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """One axis.

    Attributes
    ----------
    low, high : float
        Values at its ends; above 0 where it is logarithmic.
    start, end : float
        Places of its ends.
    log, whole : bool
        Logarithmic; with whole numbers beside it.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        at = math.log10(value) if self.log else value
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values along the axis, about so many."""
        if self.log:
            return _powers(self.low, self.high)
        step = _step((self.high - self.low) / count)
        if self.whole:
            step = max(1.0, round(step))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def linear(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    zero: bool = False,
    whole: bool = False,
) -> Scale:
    """Return an axis for values; with 0 on it if asked, else with room at both ends."""
    found = [*values, *([0.0] if zero else [])] or [0.0, 1.0]
    low, high = min(found), max(found)
    if low == high:
        low, high = low - 0.5 * (not zero), low + 1.0
    elif not zero:
        room = 0.03 * (high - low)
        low, high = low - room, high + room
    return Scale(low, high, start, end, whole=whole)


def logarithmic(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a logarithmic axis for those of the values that are above 0."""
    found = [value for value in values if value > 0] or [1.0, 10.0]
    low, high = min(found), max(found)
    room = max(1.05, (4.0 * low / high) ** 0.5)  # at least a factor of four from end to end
    return Scale(low / room, high * room, start, end, log=True)


def _step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return next(step * power for step in _STEPS if step * power >= size * (1 - 1e-9))


def _powers(low: float, high: float) -> list[float]:
    """Return powers of ten, or round values between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    parts = (1.0,) if last - first > 4 else (1.0, 3.0) if last - first > 1 else (1.0, 2.0, 5.0)
    values = [part * 10.0**power for power in range(first, last + 1) for part in parts]
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
