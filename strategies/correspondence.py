"""One round's messages and replies, written down in the log as they come and go."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message

from fl_opt.errors import ExchangeError, FlOptError
from fl_opt.exchange.incoming import Answer
from strategies.messenger import Messenger
from strategies.replies import check_no_error
from strategies.round_log import RoundLog
from strategies.streaming import ReplyStream

_logger = logging.getLogger(__name__)


class Correspondence:
    """Opens rounds, reads replies and serves again those clients that need it.

    Parameters
    ----------
    messenger : Messenger
    log : RoundLog

    Attributes
    ----------
    unanswered : set of int
        Nodes that were asked in the round and of which nothing usable or final has come.
    """

    def __init__(self, messenger: Messenger, log: RoundLog) -> None:
        self._messenger = messenger
        self._log = log
        self._round = 0
        self._stream: ReplyStream | None = None
        self._dense_bytes = 0
        self.unanswered: set[int] = set()

    def open(
        self,
        server_round: int,
        nodes: Sequence[int],
        config: ConfigRecord,
        message_type: str,
        *,
        dense_bytes: int,
        **options: Any,
    ) -> list[Message]:
        """Return a message to each node.

        Parameters
        ----------
        server_round, nodes, config, message_type, **options
            See :meth:`~strategies.messenger.Messenger.open_round`.
        dense_bytes : int
            Of the whole model as float32.
        """
        self._round = server_round
        self.unanswered = set(nodes)
        config["server-round"] = server_round
        self._dense_bytes = dense_bytes
        messages = self._messenger.open_round(
            server_round, nodes, config, message_type, **options
        )
        self._log.sent(messages, dense_bytes=dense_bytes)
        return [message for message, _ in messages]

    def ask(self, nodes: Sequence[int]) -> None:
        """Send a message of the round to some more nodes, while its replies are read."""
        if not nodes or self._stream is None:
            return
        self.unanswered.update(nodes)
        messages = self._messenger.ask(nodes)
        self._log.sent(messages, dense_bytes=self._dense_bytes)
        self._stream.push(message for message, _ in messages)

    def read(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Yield replies; the time until each one is there counts as waiting."""
        self._stream = replies if isinstance(replies, ReplyStream) else None
        iterator = iter(replies)
        while True:
            with self._log.part("wait"):
                reply = next(iterator, None)
            if reply is None:
                return
            yield reply

    def answer(self, reply: Message) -> Answer | None:
        """Return what stands beside a reply's payload; None if the client was served again.

        Raises
        ------
        ExchangeError
            If the reply is an error, or not one of ours; or if the client cannot be served.
        """
        check_no_error(reply)
        answer = Answer.of(reply.content)
        self._messenger.note(reply.metadata.src_node_id, answer)
        self._log.noted(answer)
        if not answer.need:
            return answer
        if self._stream is None:
            raise ExchangeError(f"client cannot follow: {answer.need}")
        repeated = self._messenger.repeat(reply, answer)
        self._log.sent([repeated], dense_bytes=0)
        self._stream.push([repeated[0]])
        return None

    def close(self) -> None:
        """Wait for no further reply in this round."""
        if self._stream is not None:
            self._stream.close()

    @property
    def at_hand(self) -> int:
        """Replies that can be read without waiting, as far as is known."""
        return self._stream.at_hand if self._stream is not None else 0

    @property
    def busy(self) -> set[int]:
        """Nodes that are still at work."""
        return self._stream.busy if self._stream is not None else set()

    def is_late(self, reply: Message) -> bool:
        """Whether a reply is to a message of an earlier round."""
        return self._stream is not None and self._stream.is_late(reply)

    def seconds_of(self, reply: Message) -> float:
        """Return the time from a message to its reply; NaN if it is not known."""
        return self._stream.seconds_of(reply) if self._stream is not None else math.nan

    def settled(self, reply: Message) -> None:
        """Note that a reply has been dealt with."""
        self.unanswered.discard(self.node_of(reply))

    def refuse(self, reply: Message, error: FlOptError) -> None:
        """Note why a reply cannot be used; a late one is no failure of this round."""
        if self.is_late(reply):
            self.ignore(reply, error)
            return
        node_id = self.node_of(reply)
        _logger.warning("round %d: reply of node %d refused: %s", self._round, node_id, error)
        self._log.refused(node_id, str(error))
        self.unanswered.discard(node_id)

    def ignore(self, reply: Message, error: FlOptError) -> None:
        """Note why a reply, in which nothing is wrong, does not count."""
        node_id = self.node_of(reply)
        _logger.info("round %d: node %d: %s", self._round, node_id, error)
        self._log.ignored(node_id)

    def node_of(self, reply: Message) -> int:
        """Return the node that was asked."""
        if self._stream is not None:
            return self._stream.node_of(reply)
        return reply.metadata.src_node_id
