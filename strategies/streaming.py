"""Replies one by one, as they arrive, from any Grid.

Flower's ``Strategy.start`` hands what ``Grid.send_and_receive`` returns to
``aggregate_train``, which takes any iterable. With a :class:`StreamingGrid` that iterable
waits for replies itself: a strategy decodes each reply while the others are still on their
way, and never holds them all. The wrapper polls at its own pace, where Flower's Grid
for deployments looks every three seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

from fl_opt.simulation.clock import Clock, WallClock
from fl_opt.simulation.proxy import GridProxy

logger = logging.getLogger(__name__)

SHORTEST_WAIT = 0.05
LONGEST_WAIT = 1.0
BACKOFF = 1.5


class ReplyStream(Iterator[Message]):
    """The replies to messages that have been sent, in order of arrival.

    It ends when every reply has come or the time is up. The clock runs from the moment the
    messages were sent, whoever is iterating.

    Attributes
    ----------
    expected : int
        Messages sent and accepted.
    received : int
        Replies handed out so far.
    """

    def __init__(
        self, grid: Grid, clock: Clock, message_ids: Iterable[str], timeout: float | None
    ) -> None:
        self._grid = grid
        self._clock = clock
        self._pending = set(message_ids)
        self._deadline = math.inf if timeout is None else clock.time() + timeout
        self.expected = len(self._pending)
        self.received = 0
        self._replies = self._wait()

    @property
    def missing(self) -> int:
        """Replies that have not come so far, or, at the end, in time."""
        return len(self._pending)

    def __next__(self) -> Message:
        reply = next(self._replies)
        self.received += 1
        return reply

    def _wait(self) -> Iterator[Message]:
        wait = SHORTEST_WAIT
        while self._pending:
            for reply in self._grid.pull_messages(self._pending.copy()):
                question = reply.metadata.reply_to_message_id
                if question in self._pending:
                    self._pending.discard(question)
                    wait = SHORTEST_WAIT
                    yield reply
            left = self._deadline - self._clock.time()
            if not self._pending or left <= 0.0:
                return
            self._clock.sleep(min(wait, left))
            wait = min(wait * BACKOFF, LONGEST_WAIT)


class StreamingGrid(GridProxy):
    """A Grid whose ``send_and_receive`` returns before the replies are there.

    Parameters
    ----------
    grid : Grid
        Any Grid; everything but ``send_and_receive`` is its own. Its ``clock`` is used if
        it has one, real time otherwise.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.clock: Clock = getattr(grid, "clock", None) or WallClock()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> ReplyStream:
        """Send messages at once and return the stream of their replies.

        Parameters
        ----------
        messages : iterable of Message
        timeout : float, optional
            Seconds from now after which the stream ends with what has come.

        Returns
        -------
        ReplyStream
        """
        sent = list(messages)  # Grids go through them more than once
        accepted = [key for key in self.inner.push_messages(sent) if key] if sent else []
        if len(accepted) < len(sent):
            logger.warning(
                "%d of %d messages were refused", len(sent) - len(accepted), len(sent)
            )
        return ReplyStream(self.inner, self.clock, accepted, timeout)
