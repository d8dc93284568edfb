"""How long a server waits before it looks for replies again.

A look is a request to the SuperLink, and a reply that nobody looks for delays its round. So
the server learns for each node how long an answer takes, looks often while one is due, and
seldom before. The smoothed mean and deviation are those of TCP's retransmission timer
(Jacobson 1988, "Congestion avoidance and control"; RFC 6298).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

SHORTEST_WAIT: Final = 0.1
"""Seconds between two looks, at least.

Not less: a SuperLink shows a reply a moment before all of its arrays are there, and Flower
then waits a whole second before it tries a second time to pull one (``PULL_INITIAL_BACKOFF``).
Looking twice as often finds twice as many replies in that state.
"""
LONGEST_WAIT: Final = 1.0
"""Seconds between two looks, at most, while no reply is due."""

MEAN_GAIN: Final = 1 / 8
DEVIATION_GAIN: Final = 1 / 4
"""Weights of the newest observation, as in TCP."""
DEVIATIONS: Final = 3.0
"""How far from the mean a reply is still due, in mean absolute deviations."""
MARGIN: Final = 0.05
"""What is added to that, as a part of the mean."""
LOOKS: Final = 16
"""Looks at most in half the time in which a reply is due; it bounds the cost of a vague one."""
PATIENCE: Final = 0.25
"""Wait for an overdue reply, as a part of the time that it is overdue."""


@dataclass
class _Turnaround:
    """How long a node takes to answer; in seconds."""

    mean: float
    deviation: float

    def observe(self, seconds: float, doubt: float) -> None:
        """Take in an answer after ``seconds``, give or take ``doubt``."""
        error = seconds - self.mean
        self.mean += MEAN_GAIN * error
        self.deviation += DEVIATION_GAIN * (max(abs(error), doubt) - self.deviation)

    @property
    def spread(self) -> float:
        return DEVIATIONS * self.deviation + max(MARGIN * self.mean, SHORTEST_WAIT)


class Polling:
    """Says when to look for replies; told about messages, their answers and the time.

    Times are seconds of any clock that does not run backwards. It remembers the messages that
    are open and, for each node that has ever answered, two numbers.

    Examples
    --------
    >>> polling = Polling()
    >>> polling.sent("a", node_id=7, now=0.0)
    >>> polling.wait(now=0.0)
    0.1
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, float]] = {}
        self._turnarounds: dict[int, _Turnaround] = {}
        self._looked = 0.0

    def __len__(self) -> int:
        """Return the number of open messages."""
        return len(self._open)

    def sent(self, message_id: str, node_id: int, now: float) -> None:
        """Note that a message is on its way to a node."""
        self._open[message_id] = (node_id, now)

    def answered(self, message_id: str, now: float) -> None:
        """Note that a look has found the reply to a message; others are ignored.

        The reply came at some time since the look before; the middle of that is learned.
        """
        if message_id not in self._open:
            return
        node_id, sent = self._open.pop(message_id)
        doubt = max(0.0, now - max(sent, self._looked)) / 2.0
        seconds = now - doubt - sent
        if node_id in self._turnarounds:
            self._turnarounds[node_id].observe(seconds, doubt)
        else:
            self._turnarounds[node_id] = _Turnaround(seconds, doubt)

    def given_up(self, message_id: str) -> None:
        """Forget a message; nothing is learned from it."""
        self._open.pop(message_id, None)

    def wait(self, now: float) -> float:
        """Return the seconds until the next look; to be called after each look.

        Parameters
        ----------
        now : float
            When the last look was over.

        Returns
        -------
        float
            Between :data:`SHORTEST_WAIT` and :data:`LONGEST_WAIT`.
        """
        self._looked = now
        shortest = min(self._waits(now), default=LONGEST_WAIT)
        return min(max(shortest, SHORTEST_WAIT), LONGEST_WAIT)

    def _waits(self, now: float) -> Iterator[float]:
        """Yield for each open message the seconds after which to look for its reply."""
        for node_id, sent in self._open.values():
            known = self._turnarounds.get(node_id)
            if known is None:  # overdue from the start: often at first, then ever less
                yield PATIENCE * (now - sent)
                continue
            until_due = sent + known.mean - known.spread - now
            overdue = now - sent - known.mean - known.spread
            if until_due > 0.0:
                yield until_due
            else:
                yield max(known.spread / LOOKS, PATIENCE * overdue)
