"""Evaluation of the model by clients, in messages of its own."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fl_opt.errors import FlOptError
from fl_opt.exchange import records
from strategies.correspondence import Correspondence
from strategies.replies import open_reply
from strategies.round_log import RoundLog


class ClientEvaluation:
    """Asks clients for their metrics and reads them.

    Parameters
    ----------
    correspondence : Correspondence
    log : RoundLog
    weighted_by_key : str
        Name of the metric that weighs the others.
    """

    def __init__(
        self, correspondence: Correspondence, log: RoundLog, weighted_by_key: str
    ) -> None:
        self._correspondence = correspondence
        self._log = log
        self._weighted_by_key = weighted_by_key

    def open(
        self,
        server_round: int,
        nodes: list[int],
        config: ConfigRecord,
        *,
        dense_bytes: int,
        ttl: float | None,
    ) -> list[Message]:
        """Return a message to each node."""
        return self._correspondence.open(
            server_round,
            nodes,
            config,
            MessageType.EVALUATE,
            dense_bytes=dense_bytes,
            ttl=ttl,
        )

    def collect(self, replies: Iterable[Message]) -> list[RecordDict]:
        """Return the metrics of those who had examples to evaluate on."""
        metrics: list[RecordDict] = []
        for reply in self._correspondence.read(replies):
            self._log.received(reply, training=False, received=0)
            try:
                if self._correspondence.answer(reply) is None:
                    continue
                record, weight = open_reply(reply, self._weighted_by_key, least=0)
            except FlOptError as error:
                self._correspondence.refuse(reply, error)
                continue
            if weight:
                metrics.append(RecordDict({records.METRICS: record}))
        return metrics
