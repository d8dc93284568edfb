"""Bits for each client, from its bandwidth and the time that a round takes anyway.

A round of clients that are waited for cannot end before the slowest one has done its work and
sent the leanest update that is good enough. Whoever would be ready before that may use the time
left for more bits (field names: T is the deadline)::

    bits = bandwidth * (T - work - down)

So T is learned, not set: the time at which the last of those who are waited for would be done
with the leanest level, and a little slack, so that bytes that cost next to no time are not
saved. Links are those of :mod:`fl_opt.exchange.link_estimate`. The first
clients get the ordinary level. A newcomer after them is taken to be as slow as the slower of
those known, and gets no more than the ordinary level: that is all the exploration there is.

Which level is the leanest allowed depends on the updates: each has to hold a share of its
update's energy, and the bound rises by a level when training makes no progress any more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fl_opt.errors import CheckpointError
from fl_opt.exchange.ladder import Ladder
from fl_opt.exchange.link_estimate import LinkEstimate, median_link

_SMOOTHING: Final = 0.3
"""Weight of the newest measurement in running means."""
_PATIENCE: Final = 10
"""Rounds without progress after which the leanest level is given up."""
_PROGRESS: Final = 0.01
"""Share by which the smoothed loss has to fall to be progress."""
_CAUTION: Final = 0.75
"""Share of the known clients that a newcomer is taken to be no faster than."""


@dataclass(frozen=True)
class Exchange:
    """What a reply tells of a link.

    Attributes
    ----------
    level : int
        That the client was given.
    bytes_down, bytes_up : int
        Of the message and its reply.
    seconds, work_seconds : float
        From the message to its reply, and what of it the client worked.
    energy : float or None
        Share of the update's energy that was sent, in [0, 1].
    """

    level: int
    bytes_down: int
    bytes_up: int
    seconds: float
    work_seconds: float
    energy: float | None = None


@dataclass
class _Plateau:
    """Whether training still makes progress."""

    smoothed: float | None = None
    best: float = math.inf
    waited: int = 0

    def reached(self, loss: float) -> bool:
        old = self.smoothed
        self.smoothed = loss if old is None else old + _SMOOTHING * (loss - old)
        if self.smoothed < (1.0 - _PROGRESS) * self.best:
            self.best, self.waited = self.smoothed, 0
            return False
        self.waited += 1
        if self.waited < _PATIENCE:
            return False
        self.best, self.waited = self.smoothed, 0
        return True


@dataclass
class _Levels:
    """Means over all clients, by level: bytes down and up, energy."""

    down: dict[int, float] = field(default_factory=dict)
    up: dict[int, float] = field(default_factory=dict)
    energy: dict[int, float] = field(default_factory=dict)


class Budget:
    """Chooses a level for each client of a round.

    Parameters
    ----------
    ladder : Ladder
    """

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder
        self._size = 0
        self._links: dict[int, LinkEstimate] = {}
        self._work: dict[int, float] = {}
        self._means = _Levels()
        self._plateau = _Plateau()
        self._raised = 0

    def begin(self, size: int) -> None:
        """Be told the number of the model's parameters."""
        self._size = size

    def link(self, node_id: int) -> LinkEstimate | None:
        """Return what is known of a client's link."""
        return self._links.get(node_id)

    def leanest(self) -> int:
        """Return the leanest level that is good enough."""
        top = len(self.ladder.levels) - 1
        known = self._means.energy
        poor = [level for level in known if known[level] < self.ladder.energy]
        return min(max([self._raised, *(level + 1 for level in poor)]), top)

    def choose(self, nodes: Sequence[int], wanted: int) -> dict[int, int]:
        """Return a level for each client.

        Parameters
        ----------
        nodes : sequence of int
            That are asked together.
        wanted : int
            How many of them are waited for.
        """
        leanest = self.leanest()
        if not self._links or not nodes:
            return dict.fromkeys(nodes, max(self.ladder.ordinary, leanest))
        alike = self._alike(nodes, leanest)
        ends = sorted(self.seconds(alike[node_id], leanest) for node_id in nodes)
        last = min(max(wanted, 1), len(ends))
        deadline = ends[last - 1] * (1.0 + self.ladder.slack)
        top = len(self.ladder.levels) - 1
        chosen: dict[int, int] = {}
        for node_id in nodes:
            richest = top if node_id in self._links else self.ladder.ordinary
            chosen[node_id] = self._richest_by(deadline, alike[node_id], leanest, richest)
        return chosen

    def _alike(self, nodes: Sequence[int], leanest: int) -> dict[int, int]:
        """Return for each client the known one that it is taken to be like: mostly itself."""
        alike = {node_id: node_id for node_id in nodes if node_id in self._links}
        if len(alike) < len(set(nodes)):
            ranked = sorted(self._links, key=lambda node_id: self.seconds(node_id, leanest))
            slow = ranked[min(int(_CAUTION * len(ranked)), len(ranked) - 1)]
            alike = dict.fromkeys(nodes, slow) | alike
        return alike

    def _richest_by(self, deadline: float, node_id: int, leanest: int, richest: int) -> int:
        for level in range(richest, leanest, -1):
            if self.seconds(node_id, level) <= deadline:
                return level
        return leanest

    def seconds(self, node_id: int, level: int) -> float:
        """Return the time from a message to its reply that is expected at a level."""
        work = self._work.get(node_id)
        if work is None:
            work = statistics.median(self._work.values()) if self._work else 0.0
        link = self._links.get(node_id) or LinkEstimate(self._typical())
        return work + link.seconds(*self.sizes(level))

    def sizes(self, level: int) -> tuple[float, float]:
        """Return the bytes down and up that are expected at a level."""
        one = self.ladder.levels[level]
        return (
            self._expected(level, self._means.down, one.bits_down),
            self._expected(level, self._means.up, one.bits_up),
        )

    def _expected(self, level: int, means: Mapping[int, float], bits: float | None) -> float:
        if level in means:
            return means[level]
        if bits is not None:
            return bits * self._size / 8.0
        return statistics.median(means.values()) if means else 0.0

    def observe(self, node_id: int, exchange: Exchange) -> None:
        """Learn from a reply."""
        if not 0 <= exchange.work_seconds < exchange.seconds < math.inf:
            return
        if node_id not in self._links:
            self._links[node_id] = LinkEstimate(self._typical())
        self._links[node_id].observe(
            exchange.bytes_down, exchange.bytes_up, exchange.seconds - exchange.work_seconds
        )
        _blend(self._work, node_id, exchange.work_seconds)
        _blend(self._means.down, exchange.level, exchange.bytes_down)
        _blend(self._means.up, exchange.level, exchange.bytes_up)
        if exchange.energy is not None:
            _blend(self._means.energy, exchange.level, exchange.energy)

    def end_round(self, loss: float | None) -> None:
        """Be told the mean training loss of a round."""
        top = len(self.ladder.levels) - 1
        if loss is not None and math.isfinite(loss) and self._plateau.reached(loss):
            self._raised = min(self._raised + 1, top)

    def _typical(self) -> tuple[float, float, float]:
        return median_link(list(self._links.values()))

    def state(self) -> dict[str, Any]:
        """Return all that later choices depend on, as plain values."""
        means, plateau = self._means, self._plateau
        return {
            "size": self._size,
            "links": {str(node): link.state() for node, link in self._links.items()},
            "work": _plain(self._work),
            "means": [_plain(means.down), _plain(means.up), _plain(means.energy)],
            "plateau": [
                plateau.smoothed,
                None if math.isinf(plateau.best) else plateau.best,
                plateau.waited,
            ],
            "raised": self._raised,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        try:
            self._size = int(values["size"])
            self._links = {
                int(node): LinkEstimate.restored(numbers)
                for node, numbers in values["links"].items()
            }
            self._work = _numbered(values["work"])
            self._means = _Levels(*map(_numbered, values["means"]))
            smoothed, best, waited = values["plateau"]
            self._plateau = _Plateau(
                smoothed, math.inf if best is None else float(best), int(waited)
            )
            self._raised = int(values["raised"])
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"state of the budget is damaged: {error!r}") from None


def _blend(means: dict[int, float], key: int, value: float) -> None:
    old = means.get(key)
    means[key] = float(value) if old is None else old + _SMOOTHING * (value - old)


def _plain(means: Mapping[int, float]) -> dict[str, float]:
    return {str(key): value for key, value in means.items()}


def _numbered(values: Mapping[str, Any]) -> dict[int, float]:
    return {int(key): float(value) for key, value in values.items()}


def captured_energy(sent_norm: float, update_norm: float | None) -> float | None:
    """Return the share of an update's energy that was sent; None where it is not known.

    For codecs that send a projection, such as the largest entries with their mean size: the
    squared norm of what was sent over that of the update.
    """
    if update_norm is None or not 0.0 < update_norm < math.inf:
        return None
    return min((sent_norm / update_norm) ** 2, 1.0)
