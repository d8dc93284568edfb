"""Replies one by one, as they arrive, from any Grid.

Flower's ``Strategy.start`` hands what ``Grid.send_and_receive`` returns to
``aggregate_train``, which takes any iterable. With a :class:`StreamingGrid` that iterable
waits for replies itself: a strategy decodes each reply while the others are still on their
way, and never holds them all. It may send further messages while it waits, stop before all
have come, and meet those that come after their round was closed in a later one. The wrapper
looks when replies are due, where Flower's Grid for deployments looks every three seconds.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fl_opt.simulation.clock import Clock, WallClock
from fl_opt.simulation.proxy import GridProxy
from strategies.patience import Patience
from strategies.polling import Polling
from strategies.pulling import Pulling

Pull: TypeAlias = Callable[[Iterable[str]], Iterable[Message]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """A message that has been sent.

    Attributes
    ----------
    node_id : int
    at : float
        When, in seconds of the grid's clock.
    """

    node_id: int
    at: float


class ReplyStream(Iterator[Message]):
    """The replies to messages that have been sent, in order of arrival.

    It ends when every reply has come, the time is up or it is closed. The clock runs from the
    moment the messages were sent, whoever is iterating.

    Parameters
    ----------
    grid : Grid
    clock : Clock
    sent : dict of str to Sent
        The messages sent, by message id.
    timeout : float or None
        Seconds.
    late : dict of str to Sent
        The same for messages of earlier streams. Their replies are handed out too, if they come
        meanwhile; what this stream leaves unanswered is added at its end.
    pull : callable
        Looks for replies to messages, by their ids.
    pulled : deque of Message
        Replies that are there and have not been handed out; some may be left there.
    patience : Patience
        Told how long replies take.
    polling : Polling
        Says when to look for them.

    Attributes
    ----------
    expected : int
        Messages sent and accepted.
    received : int
        Replies handed out so far.
    waits_for_late : bool
        Whether the stream goes on while only replies to messages of earlier streams are
        missing; False at first.
    """

    def __init__(
        self,
        grid: Grid,
        clock: Clock,
        *,
        sent: dict[str, Sent],
        timeout: float | None,
        late: dict[str, Sent],
        pull: Pull,
        pulled: deque[Message],
        patience: Patience,
        polling: Polling,
    ) -> None:
        self._grid = grid
        self._clock = clock
        self._pending = sent
        self._late = late
        self._pull = pull
        self._pulled = pulled
        self._patience = patience
        self._polling = polling
        self._own = set(sent)
        self._questions = {**late, **sent}
        self._deadline = math.inf if timeout is None else clock.time() + timeout
        self.expected = len(sent)
        self.received = 0
        self.waits_for_late = False
        self._replies = self._wait()

    @property
    def missing(self) -> int:
        """Replies that have not come so far, or, at the end, in time."""
        return len(self._pending)

    @property
    def at_hand(self) -> int:
        """Replies that are there already and will be handed out without waiting."""
        return len(self._pulled)

    @property
    def busy(self) -> set[int]:
        """Nodes that are still at work, as far as is known, those asked earlier included."""
        return _busy(self._late | self._pending, self._clock.time(), self._patience)

    def push(self, messages: Iterable[Message]) -> None:
        """Send further messages; the stream waits for their replies, until the same moment."""
        accepted = _push(self._grid, self._clock, messages, self._polling)
        self._pending |= accepted
        self._own |= accepted.keys()
        self._questions |= accepted
        self.expected += len(accepted)

    def close(self) -> None:
        """Wait no longer: replies that have not been handed out are late."""
        self._replies.close()
        self._late |= self._pending

    def node_of(self, reply: Message) -> int:
        """Return the node that a reply is from; an error made by a SuperLink names another."""
        sent = self._questions.get(reply.metadata.reply_to_message_id)
        return sent.node_id if sent else reply.metadata.src_node_id

    def seconds_of(self, reply: Message) -> float:
        """Return the time since the message was sent to which this is the reply, else NaN."""
        sent = self._questions.get(reply.metadata.reply_to_message_id)
        return self._clock.time() - sent.at if sent else math.nan

    def is_late(self, reply: Message) -> bool:
        """Whether a reply belongs to an earlier stream."""
        return reply.metadata.reply_to_message_id not in self._own

    def __next__(self) -> Message:
        reply = next(self._replies)
        self.received += 1
        if reply.has_content():
            self._patience.observe(self.seconds_of(reply))
        return reply

    def _wait(self) -> Generator[Message]:
        while True:
            while self._pulled:
                reply = self._pulled.popleft()
                if self._answered(reply.metadata.reply_to_message_id):
                    yield reply
            if not (self._pending or (self.waits_for_late and self._late)):
                break
            self._pulled += self._pull(self._pending.keys() | self._late.keys())
            now = self._clock.time()
            for reply in self._pulled:
                question = reply.metadata.reply_to_message_id
                if reply.has_error():  # it may be the SuperLink's, for a node that is gone
                    self._polling.given_up(question)
                else:
                    self._polling.answered(question, now)
            wait = self._polling.wait(now)
            if self._pulled:
                continue
            if now >= self._deadline:
                break
            self._clock.sleep(min(wait, self._deadline - now))
        self._late |= self._pending

    def _answered(self, question: str) -> bool:
        """Note a reply; False for a second one, or one that nobody waits for."""
        found = self._pending.pop(question, None), self._late.pop(question, None)
        return any(found)


class StreamingGrid(GridProxy):
    """A Grid whose ``send_and_receive`` returns before the replies are there.

    Parameters
    ----------
    grid : Grid
        Any Grid; everything but ``send_and_receive`` is its own. Its ``clock`` is used if
        it has one, real time otherwise.

    Attributes
    ----------
    late : dict of str to Sent
        Training messages whose replies did not come in time, by message id. They are waited for
        together with those of the next training. Those of a server that was cut off can be
        added.
    pulled : deque of Message
        Training replies that are there and will be handed out in the next training.
    patience : Patience
        How long clients are taken to be at work.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.clock: Clock = getattr(grid, "clock", None) or WallClock()
        self.late: dict[str, Sent] = {}
        self.pulled: deque[Message] = deque()
        self.patience = Patience()
        self._polling = Polling()
        self._pull = self._new_pull()

    @property
    def busy(self) -> set[int]:
        """Nodes that are still at work on a training message, as far as is known."""
        return _busy(self.late, self.clock.time(), self.patience)

    def give_back(self) -> None:
        """Let the inner grid keep replies that have not been handed out, if it can.

        They are then part of what it saves.
        """
        put_back = getattr(self.inner, "put_back", None)
        if put_back is not None:
            put_back(list(self.pulled))
            self.pulled.clear()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> ReplyStream:
        """Send messages at once and return the stream of their replies.

        Parameters
        ----------
        messages : iterable of Message
            Of one type. If there are none, they are taken for training messages.
        timeout : float, optional
            Seconds from now after which the stream ends with what has come.

        Returns
        -------
        ReplyStream
        """
        asked = list(messages)
        trains = all(m.metadata.message_type.startswith(MessageType.TRAIN) for m in asked)
        late, pulled = (self.late, self.pulled) if trains else ({}, deque[Message]())
        polling = self._polling if trains else Polling()
        sent = _push(self.inner, self.clock, asked, polling)
        return ReplyStream(
            self.inner,
            self.clock,
            sent=sent,
            timeout=timeout,
            late=late,
            pull=self._pull if trains else self._new_pull(),
            pulled=pulled,
            patience=self.patience if trains else Patience(),  # training takes longer
            polling=polling,
        )

    def _new_pull(self) -> Pull:
        """Return what looks for replies: by itself where time is virtual and nothing blocks."""
        virtual = hasattr(self.inner, "clock")
        return self.inner.pull_messages if virtual else Pulling(self.inner).pull


def _busy(sent: Mapping[str, Sent], now: float, patience: Patience) -> set[int]:
    return {one.node_id for one in sent.values() if not patience.is_over(now - one.at)}


def _push(
    grid: Grid, clock: Clock, messages: Iterable[Message], polling: Polling
) -> dict[str, Sent]:
    """Send messages and return those that were accepted, by message id."""
    asked = list(messages)  # Grids go through them more than once
    keys = grid.push_messages(asked) if asked else ()
    now = clock.time()
    accepted = {
        key: Sent(message.metadata.dst_node_id, now)
        for key, message in zip(keys, asked, strict=True)
        if key
    }
    for key, sent in accepted.items():
        polling.sent(key, sent.node_id, now)
    if len(accepted) < len(asked):
        logger.warning("%d of %d messages were refused", len(asked) - len(accepted), len(asked))
    return accepted
