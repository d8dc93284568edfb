"""One round's messages and replies, written down in the log as they come and go."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from flwr.app import ConfigRecord, Message, MessageType

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
        self._replies: Iterable[Message] = ()
        self.unanswered: set[int] = set()

    def open(
        self,
        server_round: int,
        nodes: Sequence[int],
        config: ConfigRecord,
        message_type: str,
        *,
        dense_bytes: int,
        evaluate: bool = False,
    ) -> list[Message]:
        """Return a message to each node.

        Parameters
        ----------
        server_round, nodes, config, message_type, evaluate
            See :meth:`~strategies.messenger.Messenger.open_round`.
        dense_bytes : int
            Of the whole model as float32.
        """
        self._round = server_round
        self.unanswered = set(nodes)
        config["server-round"] = server_round
        trains = message_type == MessageType.TRAIN
        messages = self._messenger.open_round(
            server_round, nodes, config, message_type, evaluate=trains and evaluate
        )
        self._log.sent(messages, dense_bytes=dense_bytes)
        return [message for message, _ in messages]

    def read(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Yield replies; the time until each one is there counts as waiting."""
        self._replies = replies
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
        if not isinstance(self._replies, ReplyStream):
            raise ExchangeError(f"client cannot follow: {answer.need}")
        repeated = self._messenger.repeat(reply, answer)
        self._log.sent([repeated], dense_bytes=0)
        self._replies.push([repeated[0]])
        return None

    def settled(self, reply: Message) -> None:
        """Note that a reply has been dealt with."""
        self.unanswered.discard(self._node_of(reply))

    def refuse(self, reply: Message, error: FlOptError) -> None:
        """Note why a reply cannot be used; a late one is no failure of this round."""
        if isinstance(self._replies, ReplyStream) and self._replies.is_late(reply):
            self.ignore(reply, error)
            return
        node_id = self._node_of(reply)
        _logger.warning("round %d: reply of node %d refused: %s", self._round, node_id, error)
        self._log.refused(node_id, str(error))
        self.unanswered.discard(node_id)

    def ignore(self, reply: Message, error: FlOptError) -> None:
        """Note why a reply, in which nothing is wrong, does not count."""
        node_id = self._node_of(reply)
        _logger.info("round %d: node %d: %s", self._round, node_id, error)
        self._log.ignored(node_id)

    def _node_of(self, reply: Message) -> int:
        if isinstance(self._replies, ReplyStream):
            return self._replies.node_of(reply)
        return reply.metadata.src_node_id
