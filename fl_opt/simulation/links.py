"""How the links of simulated clients change over time.

A link's course is a function of time alone: constant pieces, one after the other, that depend
on the seed, the client and the moment, never on what was asked before. So results depend on no
order, and nothing of it has to be saved.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import ConfigError
from fl_opt.seeds import derive_seed
from fl_opt.simulation.link_trace import LinkTrace, read_trace

_LEAST_EVERY: Final = 0.1


class Piece(NamedTuple):
    """A link over a span in which it does not change.

    Attributes
    ----------
    uplink_mbps, downlink_mbps : float
        Bandwidth in megabits (10^6 bits) a second; 0 while nothing gets through.
    latency_seconds : float
        Of what is sent in that span.
    until : float
        When the span ends, in seconds of the grid's clock.
    """

    uplink_mbps: float
    downlink_mbps: float
    latency_seconds: float
    until: float = math.inf


Course: TypeAlias = Callable[[float], Iterator[Piece]]
"""Gives the piece that holds at a moment, and those after it, in order and without end."""

Direction: TypeAlias = Literal["uplink_mbps", "downlink_mbps"]


def transfer_seconds(
    num_bytes: int, start: float, course: Course, direction: Direction
) -> float:
    """Return how long a transfer takes, whatever happens to the link meanwhile.

    Its bits leave as fast as the link is at each moment. The latency is that of its beginning.

    Parameters
    ----------
    num_bytes : int
    start : float
        In seconds of the grid's clock.
    course : callable
        Of the link, a :data:`Course`.
    direction : {"uplink_mbps", "downlink_mbps"}
    """
    left = num_bytes * 8 / 1e6  # megabits
    now, latency = start, math.nan
    for piece in course(start):
        if math.isnan(latency):
            latency = piece.latency_seconds
        rate: float = getattr(piece, direction)
        capacity = rate * max(piece.until - now, 0.0) if rate else 0.0
        if left <= capacity:
            return latency + (now - start) + (left / rate if left else 0.0)
        left -= capacity
        now = max(now, piece.until)
    raise ValueError("the course of a link has an end")


class LinkRule(Protocol):
    """How links change."""

    name: ClassVar[str]

    def course(self, mean: Piece, seed: int, client: int) -> Course:
        """Return the course of a client's link.

        Parameters
        ----------
        mean : Piece
            What the settings say of it.
        seed, client : int
            What randomness depends on.
        """


@dataclass(frozen=True)
class SteadyLinks:
    """Links never change."""

    name: ClassVar[str] = "steady"

    def course(self, mean: Piece, seed: int, client: int) -> Course:
        """Return one piece that never ends."""
        return lambda _start: iter((mean,))


@dataclass(frozen=True)
class LognormalLinks:
    """The bandwidth of each link is drawn again every so many seconds.

    It is the link's own mean times ``exp(sigma z - sigma^2 / 2)``, z standard normal: a
    log-normal factor of mean 1, the same for both directions. Links change at different
    moments, each with the same time in between.

    Parameters
    ----------
    sigma : float
        Of the logarithm, from 0 to 3.
    every : float
        Seconds between changes, at least 0.1.
    """

    sigma: float
    every: float = 60.0

    name: ClassVar[str] = "lognormal"

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma <= 3.0:
            raise ConfigError(f"sigma = {self.sigma} is not from 0 to 3")
        if not _LEAST_EVERY <= self.every < math.inf:
            raise ConfigError(f"every = {self.every} is not at least {_LEAST_EVERY}")

    def course(self, mean: Piece, seed: int, client: int) -> Course:
        """Return pieces of equal length and random bandwidth."""
        offset = self.every * _uniform(seed, client)

        def pieces(start: float) -> Iterator[Piece]:
            index = max(math.floor((start + offset) / self.every), 0)
            while True:
                z = np.random.default_rng(derive_seed(seed, "link", client, index))
                factor = math.exp(self.sigma * z.standard_normal() - self.sigma**2 / 2.0)
                index += 1
                yield Piece(
                    mean.uplink_mbps * factor,
                    mean.downlink_mbps * factor,
                    mean.latency_seconds,
                    index * self.every - offset,
                )

        return pieces


@dataclass(frozen=True)
class TracedLinks:
    """Links follow a file, over and over; see :mod:`fl_opt.simulation.link_trace`.

    Parameters
    ----------
    path : str
        Of the file; a name without spaces, commas, brackets and ``=``.
    start : {"random", "same"}
        Whether each client begins at a moment of its own, or all at the first line.
    """

    path: str
    start: Literal["random", "same"] = "random"

    name: ClassVar[str] = "trace"

    @cached_property
    def trace(self) -> LinkTrace:
        """What the file says; it is read once."""
        return read_trace(self.path)

    def course(self, mean: Piece, seed: int, client: int) -> Course:
        """Return the pieces of the file, from the client's own beginning."""
        trace = self.trace
        offset = trace.period * _uniform(seed, client) if self.start == "random" else 0.0

        def pieces(start: float) -> Iterator[Piece]:
            cycle = math.floor((start + offset) / trace.period)
            begin = cycle * trace.period - offset
            row = max(bisect_right(trace.times, start - begin) - 1, 0)
            while True:
                uplink, downlink, latency = trace.rows[row]
                row += 1
                if row == len(trace.rows):
                    row, cycle = 0, cycle + 1
                    begin = cycle * trace.period - offset
                yield Piece(
                    mean.uplink_mbps if uplink is None else uplink,
                    mean.downlink_mbps if downlink is None else downlink,
                    mean.latency_seconds if latency is None else latency,
                    begin + trace.times[row],
                )

        return pieces


LINKS: Final[Mapping[str, type[LinkRule]]] = {
    kind.name: kind for kind in (SteadyLinks, LognormalLinks, TracedLinks)
}


def build_links(spec: str) -> LinkRule:
    """Build what ``simulation.links`` names, such as ``lognormal(0.5, every=30)``.

    Raises
    ------
    ConfigError
        If the spec is wrong, or a trace cannot be used.
    """
    rule = build_named(spec, "links", LINKS)
    if isinstance(rule, TracedLinks):
        _ = rule.trace  # refuses a bad file before anything starts
    return rule


def _uniform(seed: int, client: int) -> float:
    """Return the share of a period by which a client is ahead of the clock, in [0, 1)."""
    return float(np.random.default_rng(derive_seed(seed, "link-start", client)).random())
