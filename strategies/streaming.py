"""Replies one by one, as they arrive, from any Grid.

Flower's ``Strategy.start`` hands what ``Grid.send_and_receive`` returns to
``aggregate_train``, which takes any iterable. With a :class:`StreamingGrid` that iterable
waits for replies itself: a strategy decodes each reply while the others are still on their
way, and never holds them all. It may send further messages while it waits, and replies that
come after their round was closed turn up in a later one. The wrapper polls at its own pace,
where Flower's Grid for deployments looks every three seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import Message, MessageType
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

    Parameters
    ----------
    grid : Grid
    clock : Clock
    sent : mapping of str to int
        Node ids of the messages sent, by message id.
    timeout : float or None
        Seconds.
    late : dict of str to int
        The same for messages of earlier streams. Their replies are handed out too, if they come
        meanwhile; what this stream leaves unanswered is added at its end.

    Attributes
    ----------
    expected : int
        Messages sent and accepted.
    received : int
        Replies handed out so far.
    """

    def __init__(
        self,
        grid: Grid,
        clock: Clock,
        sent: Mapping[str, int],
        timeout: float | None,
        late: dict[str, int],
    ) -> None:
        self._grid = grid
        self._clock = clock
        self._pending = dict(sent)
        self._late = late
        self._own = set(sent)
        self._nodes = {**late, **sent}
        self._deadline = math.inf if timeout is None else clock.time() + timeout
        self.expected = len(self._pending)
        self.received = 0
        self._replies = self._wait()

    @property
    def missing(self) -> int:
        """Replies that have not come so far, or, at the end, in time."""
        return len(self._pending)

    def push(self, messages: Iterable[Message]) -> None:
        """Send further messages; the stream waits for their replies, until the same moment."""
        accepted = _push(self._grid, messages)
        self._pending |= accepted
        self._own |= accepted.keys()
        self._nodes |= accepted
        self.expected += len(accepted)

    def node_of(self, reply: Message) -> int:
        """Return the node that a reply is from; an error made by a SuperLink names another."""
        return self._nodes.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)

    def is_late(self, reply: Message) -> bool:
        """Whether a reply belongs to an earlier stream."""
        return reply.metadata.reply_to_message_id not in self._own

    def __next__(self) -> Message:
        reply = next(self._replies)
        self.received += 1
        return reply

    def _wait(self) -> Iterator[Message]:
        wait = SHORTEST_WAIT
        while self._pending:
            for reply in self._grid.pull_messages(self._pending.keys() | self._late.keys()):
                question = reply.metadata.reply_to_message_id
                if question in self._pending or question in self._late:
                    self._pending.pop(question, None)
                    self._late.pop(question, None)
                    wait = SHORTEST_WAIT
                    yield reply
            left = self._deadline - self._clock.time()
            if not self._pending or left <= 0.0:
                break
            self._clock.sleep(min(wait, left))
            wait = min(wait * BACKOFF, LONGEST_WAIT)
        self._late |= self._pending


class StreamingGrid(GridProxy):
    """A Grid whose ``send_and_receive`` returns before the replies are there.

    Parameters
    ----------
    grid : Grid
        Any Grid; everything but ``send_and_receive`` is its own. Its ``clock`` is used if
        it has one, real time otherwise.

    Attributes
    ----------
    late : dict of str to int
        Training messages whose replies did not come in time: node ids by message id. They are
        waited for together with those of the next training. Those of a server that was cut
        off can be added.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.clock: Clock = getattr(grid, "clock", None) or WallClock()
        self.late: dict[str, int] = {}

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
        asked = list(messages)
        trains = any(m.metadata.message_type.startswith(MessageType.TRAIN) for m in asked)
        late = self.late if trains else {}  # what an evaluation misses is of no use later
        return ReplyStream(self.inner, self.clock, _push(self.inner, asked), timeout, late)


def _push(grid: Grid, messages: Iterable[Message]) -> dict[str, int]:
    """Send messages and return the node ids of those that were accepted, by message id."""
    sent = list(messages)  # Grids go through them more than once
    keys = grid.push_messages(sent) if sent else ()
    accepted = {
        key: message.metadata.dst_node_id
        for key, message in zip(keys, sent, strict=True)
        if key
    }
    if len(accepted) < len(sent):
        logger.warning("%d of %d messages were refused", len(sent) - len(accepted), len(sent))
    return accepted
