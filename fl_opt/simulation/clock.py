"""Clocks: the wall's, and one that is moved by whoever sleeps on it."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

BeforeFn: TypeAlias = Callable[[float], None]
"""Takes the moment to which a clock is about to move; may schedule events up to then."""


class Clock(Protocol):
    """Tells the time and waits, in seconds."""

    def time(self) -> float:
        """Seconds since a fixed but arbitrary moment; never runs backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for some time; a clock may wake its sleeper early when something happens."""
        ...


class WallClock:
    """Real time."""

    def time(self) -> float:
        """Seconds on a monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait in real time."""
        time.sleep(seconds)


class VirtualClock:
    """Simulated time: it stands still until somebody sleeps.

    A sleeper wakes at the next scheduled event if that comes before the end of the sleep,
    so that polling for events costs no precision: they are seen at their exact times.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._events: list[float] = []
        self._before: list[BeforeFn] = []

    def time(self) -> float:
        """Seconds since the clock was made."""
        return self._now

    def before_moving(self, function: BeforeFn) -> None:
        """Call a function each time before the clock moves.

        It is for those who do not know yet whether something will happen by then.
        """
        self._before.append(function)

    def schedule(self, moment: float) -> None:
        """Note that something will happen at a moment, given in seconds of this clock.

        Moments in the past, and infinite ones, wake nobody.
        """
        if self._now < moment < math.inf:
            heapq.heappush(self._events, moment)

    def sleep(self, seconds: float) -> None:
        """Move time on by ``seconds``, or to the next event if that is earlier."""
        if seconds < 0.0:
            raise ValueError(f"cannot sleep for {seconds} seconds")
        target = self._until_event(self._now + seconds)
        for function in self._before:
            function(target)
        target = self._until_event(target)
        self._now = target
        while self._events and self._events[0] <= target:
            heapq.heappop(self._events)

    def _until_event(self, moment: float) -> float:
        return min(moment, self._events[0]) if self._events else moment
