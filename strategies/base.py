"""The strategy that federates a model through codecs."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

from fl_opt.codecs import build_codec
from fl_opt.errors import ConfigError, ExchangeError, FlOptError, ModelError
from fl_opt.exchange import records
from fl_opt.exchange.downlink import (
    ReplyRules,
    build_downlink_codec,
    for_participants,
    pack_broadcast,
)
from fl_opt.exchange.exact import ExactMean
from fl_opt.exchange.feedback import build_feedback
from fl_opt.exchange.uplink import decode_reply
from fl_opt.params import ParamSpec
from fl_opt.profiling.rounds import RoundObserver
from strategies.nodes import wait_for_nodes
from strategies.replies import open_reply
from strategies.round_log import RoundLog
from strategies.selection import Selection, UniformSelection
from strategies.streaming import StreamingGrid

Vector = NDArray[np.float32]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]

DEFAULT_EXACT: Final = ("*running_mean", "*running_var", "*num_batches_tracked")
"""Arrays of batch normalisation that are not trained, by PyTorch's names."""

_logger = logging.getLogger(__name__)


class CompressedStrategy(FedAvg):
    """Federates a model through codecs: coded broadcast, streamed aggregation of coded updates.

    The model is broadcast as one payload, encoded once. Replies are decoded and added to one
    accumulator as they arrive, weighted by their number of examples, so that memory does not
    grow with the number of clients. A reply that is not exactly right is refused with a logged
    reason, and the round goes on without it. Subclasses say what the mean update does to the
    model, in :meth:`step`.

    Parameters
    ----------
    codec : str
        Spec of what clients send.
    downlink_codec : str
        Spec of what the server sends: ``fp32``, ``fp16`` or ``bf16``.
    feedback : str
        Spec of what clients do about what the codec leaves out: ``none``, ``residual``,
        ``step_ahead`` or ``dgc``; see :mod:`fl_opt.exchange.feedback`.
    exact_arrays : sequence of str
        Patterns of names of arrays that travel exactly, beside those that are not
        floating-point.
    clients_per_round : int, optional
        Number of clients that train in a round. Default: by ``fraction_train``.
    clients_per_evaluation : int, optional
        Number of clients that evaluate. Default: by ``fraction_evaluate``.
    evaluate_every : int
        Clients evaluate every so many rounds; 0: never.
    min_replies : int
        A round with fewer usable replies leaves the model as it was.
    node_timeout : float
        Seconds to wait for enough nodes to connect.
    seed : int
        Of the choice of clients and of all randomness in codecs.
    observers : sequence of RoundObserver
        Told about the run as it goes.
    **fedavg
        Further arguments of :class:`flwr.serverapp.strategy.FedAvg`.

    Raises
    ------
    ConfigError
        If a spec or a number is wrong.
    """

    def __init__(
        self,
        codec: str = "topk(0.02) | ternary",
        *,
        downlink_codec: str = "fp32",
        feedback: str = "residual",
        exact_arrays: Sequence[str] = DEFAULT_EXACT,
        clients_per_round: int | None = None,
        clients_per_evaluation: int | None = None,
        evaluate_every: int = 1,
        min_replies: int = 1,
        node_timeout: float = 120.0,
        seed: int = 0,
        observers: Sequence[RoundObserver] = (),
        **fedavg: Any,
    ) -> None:
        super().__init__(**fedavg)
        if min_replies < 1:
            raise ConfigError(f"min_replies = {min_replies} is not at least 1")
        self.codec = build_codec(codec)
        build_feedback(feedback)  # refuses a spec that clients would refuse
        self.downlink_codec = build_downlink_codec(downlink_codec)
        self.exact_arrays = tuple(exact_arrays)
        self.clients_per_round = clients_per_round
        self.clients_per_evaluation = clients_per_evaluation
        self.evaluate_every = evaluate_every
        self.min_replies = min_replies
        self.node_timeout = node_timeout
        self.selection: Selection = UniformSelection(seed)
        self._rules = ReplyRules(codec, feedback, seed)
        self._log = RoundLog(observers)
        self._spec = ParamSpec(())
        self._vector: Vector = np.empty(0, np.float32)
        self._exact: dict[str, NDArray[Any]] = {}
        self._version = -1
        self._arrays: ArrayRecord | None = None
        self._broadcast: RecordDict | None = None
        self._expected = 0

    @abstractmethod
    def step(self, model: Vector, delta: Vector) -> Vector:
        """Return the next model.

        Parameters
        ----------
        model : ndarray of float32, shape (size,)
            The model that clients started from; it is not to be changed.
        delta : ndarray of float32, shape (size,)
            The weighted mean of their updates; it may be overwritten.
        """

    def start(  # noqa: PLR0917
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the rounds as Flower does, with replies streamed and rounds recorded."""

        def evaluate_and_record(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            with self._log.part("evaluate"):
                metrics = evaluate_fn(server_round, arrays) if evaluate_fn else None
            self._log.finish(metrics or {})
            return metrics

        with self._log.run(grid, num_rounds):
            result = super().start(
                StreamingGrid(grid),
                initial_arrays,
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                evaluate_and_record,
            )
        if not result.arrays:  # every round was refused
            result.arrays = initial_arrays
        return result

    def summary(self) -> None:
        """Log the configuration."""
        _logger.info("uplink codec: %s, feedback: %s", self.codec, self._rules.feedback)
        _logger.info("downlink codec: %s", self.downlink_codec)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose clients and build one message for each, all around the same record."""
        if self.fraction_train == 0.0 and self.clients_per_round is None:
            return []
        with self._log.part("broadcast"):
            self._adopt(arrays)
            nodes = self._choose(
                grid,
                server_round,
                self.clients_per_round,
                self.fraction_train,
                self.min_train_nodes,
            )
            messages = self._messages(server_round, config, nodes, MessageType.TRAIN)
        self._expected = len(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode and add up replies as they arrive; then take one step.

        Returns
        -------
        arrays : ArrayRecord or None
            The next model; None if the round was refused, which leaves the model as it was.
        metrics : MetricRecord or None
            The clients' metrics, aggregated.
        """
        self._log.pushed("send")
        total = 0.0
        accumulator = np.zeros(self._spec.size, np.float32)
        exact = ExactMean(self._spec)
        metrics: list[RecordDict] = []
        seen: set[int] = set()
        for reply in self._timed(replies):
            self._log.received(reply, training=True, received=len(seen) + 1)
            node_id = reply.metadata.src_node_id
            with self._log.part("decode-aggregate"):
                try:
                    if node_id in seen:
                        raise ExchangeError("the node has answered already in this round")
                    seen.add(node_id)
                    record, weight = open_reply(reply, self.weighted_by_key)
                    received = decode_reply(reply.content, self._spec, version=self._version)
                except FlOptError as error:
                    self._refuse(server_round, node_id, error)
                    continue
                received.update.add_to(accumulator, weight)
                exact.add(received.exact, weight)
                total += weight
            metrics.append(RecordDict({records.METRICS: record}))
            self._log.accepted(reply, weight)
        self._log.missing(self._expected - len(seen))
        with self._log.part("decode-aggregate"):
            if not self._complete(server_round, len(metrics), accumulator):
                return None, None
            accumulator /= np.float32(total)
            self._vector = self.step(self._vector, accumulator)
            self._exact = exact.result()
            self._version += 1
            self._broadcast = None
            self._arrays = records.pack_arrays(self._spec.unflatten(self._vector, self._exact))
        aggregated = self.train_metrics_aggr_fn(metrics, self.weighted_by_key)
        self._log.trained(aggregated)
        return self._arrays, aggregated

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose clients to evaluate the model, in the rounds that are due."""
        if not self._evaluation_due(server_round):
            return []
        with self._log.part("evaluate"):
            self._adopt(arrays)
            nodes = self._choose(
                grid,
                server_round,
                self.clients_per_evaluation,
                self.fraction_evaluate,
                self.min_evaluate_nodes,
            )
            return self._messages(server_round, config, nodes, MessageType.EVALUATE)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the clients' metrics, weighted by their number of examples."""
        if not self._evaluation_due(server_round):
            return None
        self._log.pushed("evaluate")
        metrics: list[RecordDict] = []
        with self._log.part("evaluate"):
            for reply in replies:
                self._log.received(reply, training=False, received=0)
                try:
                    record, weight = open_reply(reply, self.weighted_by_key, least=0)
                except FlOptError as error:
                    self._refuse(server_round, reply.metadata.src_node_id, error)
                    continue
                if weight:
                    metrics.append(RecordDict({records.METRICS: record}))
        if not metrics:
            return None
        aggregated = self.evaluate_metrics_aggr_fn(metrics, self.weighted_by_key)
        self._log.evaluated(aggregated)
        return aggregated

    def _evaluation_due(self, server_round: int) -> bool:
        someone = self.fraction_evaluate > 0.0 or self.clients_per_evaluation is not None
        return someone and bool(self.evaluate_every) and not server_round % self.evaluate_every

    def _adopt(self, arrays: ArrayRecord) -> None:
        """Take over a model that was set from outside; our own last one is known already."""
        if arrays is self._arrays:
            return
        named = records.unpack_arrays(arrays)
        self._spec = ParamSpec.of(named, self.exact_arrays)
        if not self._spec.size:
            raise ModelError("the model has no floating-point arrays to train")
        self._vector = self._spec.flatten(named)
        self._exact = self._spec.exact_part(named)
        self._version += 1
        self._broadcast = None
        self._arrays = arrays

    def _choose(
        self, grid: Grid, server_round: int, count: int | None, fraction: float, least: int
    ) -> list[int]:
        node_ids = wait_for_nodes(
            grid, max(self.min_available_nodes, count or least), self.node_timeout
        )
        wanted = max(int(len(node_ids) * fraction), least) if count is None else count
        return self.selection.select(node_ids, wanted, server_round)

    def _messages(
        self, server_round: int, config: ConfigRecord, nodes: list[int], message_type: str
    ) -> list[Message]:
        config["server-round"] = server_round
        if self._broadcast is None:
            self._broadcast = pack_broadcast(
                self._spec,
                self.downlink_codec,
                self._vector,
                self._exact,
                version=self._version,
                rules=self._rules,
            )
        # A copy of the configuration: Flower's loop changes its own in the next round.
        content = for_participants(self._broadcast, len(nodes))
        content[records.CONFIG] = ConfigRecord(dict(config))
        messages = list(self._construct_messages(content, nodes, message_type))
        self._log.sent(messages, dense_bytes=4 * self._spec.size)
        return messages

    def _complete(self, server_round: int, count: int, accumulator: Vector) -> bool:
        """Say whether the round may change the model."""
        if count < self.min_replies:
            _logger.warning(
                "round %d: %d usable replies, %d needed: the model stays as it was",
                server_round,
                count,
                self.min_replies,
            )
            return False
        if not np.isfinite(accumulator).all():
            _logger.warning(
                "round %d: the sum of the updates overflows: the model stays as it was",
                server_round,
            )
            return False
        return True

    def _refuse(self, server_round: int, node_id: int, error: FlOptError) -> None:
        _logger.warning("round %d: reply of node %d refused: %s", server_round, node_id, error)
        self._log.refused(node_id, str(error))

    def _timed(self, replies: Iterable[Message]) -> Iterable[Message]:
        """Yield replies; the time until each one is there counts as waiting."""
        iterator = iter(replies)
        while True:
            with self._log.part("wait"):
                reply = next(iterator, None)
            if reply is None:
                return
            yield reply
