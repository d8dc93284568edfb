"""Clocks: the wall's, and one that is moved by whoever sleeps on it."""

from __future__ import annotations

import heapq
import math
import time
from typing import Protocol


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

    def time(self) -> float:
        """Seconds since the clock was made."""
        return self._now

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
        target = self._now + seconds
        if self._events and self._events[0] <= target:
            target = self._events[0]
        self._now = target
        while self._events and self._events[0] <= target:
            heapq.heappop(self._events)
