"""How fast a client's link is, learned from how long its replies took.

A server knows for each reply how many bytes went down and up, how long it took, and how much of
that the client worked. The rest is the network's::

    seconds = latency + down * megabytes_down + up * megabytes_up

An extended Kalman filter follows the logarithms of these three numbers for each client, as
links differ by factors. It begins with what other clients' links are like and believes that a
link which is slow one way is slow the other way too, so that one reply says something of both.
Its gain falls as replies come in, but never to zero, since links change; a reply that is far
from what was expected counts less, and two of them the same way make it begin anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

ORDINARY: Final = (0.05, 0.8, 0.8)
"""Latency in seconds, seconds a megabyte down and up (10 Mbit/s): where nothing is known."""

_LEAST: Final = 1e-6
_LATENCY, _TOGETHER, _APART = 0.4, 2.0, 0.5
"""How far a link may be from the others', as factors' logarithms: its latency, both of its
directions alike, and each direction on its own."""
_DRIFT: Final = 0.15
"""Change of a link from reply to reply."""
_NOISE: Final = 0.2
"""Error of a measured time."""
_SURPRISE: Final = 3.0
"""Standard deviations from which on a reply counts less."""
_ITERATIONS: Final = 6


class LinkEstimate:
    """What is known of one link.

    Parameters
    ----------
    prior : sequence of 3 float
        Latency in seconds, seconds a megabyte (10^6 bytes) down and up.
    """

    def __init__(self, prior: Sequence[float] = ORDINARY) -> None:
        self._logs: Numbers = np.log(np.maximum(np.array(prior, np.float64), _LEAST))
        self._covariance = _PRIOR.copy()
        self._surprises = 0
        self._replies = 0

    @property
    def mean(self) -> tuple[float, float, float]:
        """Latency in seconds, seconds a megabyte down and up."""
        latency, down, up = np.exp(self._logs).tolist()
        return latency, down, up

    @property
    def mbps(self) -> tuple[float, float]:
        """Bandwidth down and up, in megabits a second."""
        _, down, up = self.mean
        return 8.0 / down, 8.0 / up

    def seconds(self, bytes_down: float, bytes_up: float) -> float:
        """Return how long both transfers are expected to take."""
        return float(_place(bytes_down, bytes_up) @ np.exp(self._logs))

    def observe(self, bytes_down: int, bytes_up: int, seconds: float) -> None:
        """Learn from a reply.

        Parameters
        ----------
        bytes_down, bytes_up : int
            Of the message and its reply.
        seconds : float
            That the network took; what is not a positive number is left out.
        """
        if not 0.0 < seconds < math.inf:
            return
        place, measured = _place(bytes_down, bytes_up), math.log(seconds)
        self._covariance += _DRIFT**2 * np.eye(3)
        noise = _NOISE**2
        error = measured - math.log(place @ np.exp(self._logs))
        slope = _slope(place, self._logs)
        spread = float(slope @ self._covariance @ slope)
        self._replies += 1
        if self._replies > 2 and abs(error) > _SURPRISE * math.sqrt(spread + noise):
            direction = 1 if error > 0 else -1
            self._surprises = direction * (1 + max(direction * self._surprises, 0))
            if abs(self._surprises) >= 2:  # no accident: the link has changed
                self._covariance = _PRIOR.copy()
            else:
                noise += (error / _SURPRISE) ** 2
        else:
            self._surprises = 0
        self._update(place, measured, noise)

    def _update(self, place: Numbers, measured: float, noise: float) -> None:
        """Move to the likeliest logarithms, by steps of Gauss and Newton."""
        before, logs = self._logs, self._logs
        for _ in range(_ITERATIONS):
            slope = _slope(place, logs)
            gain = self._covariance @ slope / (slope @ self._covariance @ slope + noise)
            expected = math.log(place @ np.exp(logs)) + float(slope @ (before - logs))
            logs = before + gain * (measured - expected)
        self._logs = logs
        self._covariance = self._covariance - np.outer(gain, slope @ self._covariance)

    def state(self) -> list[float]:
        """Return plain numbers, all that a later estimate depends on."""
        learned = [*self._logs.tolist(), *self._covariance.ravel().tolist()]
        return [*learned, self._surprises, self._replies]

    @classmethod
    def restored(cls, numbers: Sequence[float]) -> LinkEstimate:
        """Go on from what :meth:`state` returned.

        Raises
        ------
        ValueError
            If it is something else.
        """
        if len(numbers) != 14 or not np.isfinite(numbers).all():
            raise ValueError(f"an estimate of a link is 14 finite numbers, not {numbers!r:.80}")
        estimate = cls()
        estimate._logs = np.array(numbers[:3], np.float64)
        estimate._covariance = np.array(numbers[3:12], np.float64).reshape(3, 3)
        estimate._surprises, estimate._replies = int(numbers[12]), int(numbers[13])
        return estimate


def median_link(estimates: Sequence[LinkEstimate]) -> tuple[float, float, float]:
    """Return what links are like, number by number; :data:`ORDINARY` without any."""
    if not estimates:
        return ORDINARY
    latency, down, up = np.median([e.mean for e in estimates], axis=0).tolist()
    return latency, down, up


def _place(bytes_down: float, bytes_up: float) -> Numbers:
    return np.array([1.0, bytes_down / 1e6, bytes_up / 1e6])


def _slope(place: Numbers, logs: Numbers) -> Numbers:
    """Return what a change of each logarithm does to that of the time: its share of it."""
    parts = place * np.exp(logs)
    shares: Numbers = parts / parts.sum()
    return shares


_PRIOR: Final[Numbers] = np.diag([_LATENCY**2, _APART**2, _APART**2]) + _TOGETHER**2 * np.array(
    [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
)
