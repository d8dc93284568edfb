"""The strategy that federates a model through codecs."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

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

from fl_opt.checkpoint import Checkpoints
from fl_opt.codecs import build_codec
from fl_opt.errors import ConfigError, FlOptError, ModelError
from fl_opt.exchange import records
from fl_opt.exchange.downlink import DownlinkOptions, build_downlink
from fl_opt.exchange.feedback import build_feedback
from fl_opt.exchange.ledger import NotOpenError
from fl_opt.exchange.rules import ReplyRules
from fl_opt.profiling.rounds import RoundObserver
from strategies import state
from strategies.collection import Collection
from strategies.correspondence import Correspondence
from strategies.messenger import Messenger
from strategies.model import GlobalModel
from strategies.nodes import wait_for_nodes
from strategies.replies import open_reply
from strategies.round_log import RoundLog
from strategies.selection import Selection, UniformSelection
from strategies.streaming import StreamingGrid
from strategies.update_sum import UpdateSum

Vector = NDArray[np.float32]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
LateReplies = Literal["accept", "refuse"]
EvaluateMode = Literal["message", "piggyback"]

DEFAULT_EXACT: Final = ("*running_mean", "*running_var", "*num_batches_tracked")
"""Arrays of batch normalisation that are not trained, by PyTorch's names."""

_logger = logging.getLogger(__name__)


class CompressedStrategy(FedAvg):
    """Federates a model through codecs: coded broadcast, streamed aggregation of coded updates.

    Clients are sent differences to what they hold. Their replies are decoded and added to one
    accumulator as they arrive, weighted by their number of examples, so that memory does not
    grow with the number of clients. A reply that is not exactly right is refused with a logged
    reason, and the round goes on without it; each update counts at most once, and one that does
    not count returns to its client's residual. Subclasses say what the mean update does to the
    model, in :meth:`step`.

    Parameters
    ----------
    codec : str
        Spec of what clients send.
    downlink : DownlinkOptions
        How the model travels to clients.
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
    evaluate_mode : {"message", "piggyback"}
        Whether they evaluate the round's new model, which takes messages of its own, or the
        model that they are about to train from.
    late_replies : {"accept", "refuse"}
        Whether a reply that comes after its round was closed is added to the next step, with
        weight ``(1 + staleness) ** -0.5``, or returned to its client.
    min_replies : int
        A round with fewer usable replies leaves the model as it was.
    node_timeout : float
        Seconds to wait for enough nodes to connect.
    seed : int
        Of the choice of clients and of all randomness in codecs.
    checkpoints : Checkpoints, optional
        Where all that is needed to go on is written, at the end of rounds.
    checkpoint_every : int
        Rounds from one checkpoint to the next; one is written at the end in any case.
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
        downlink: DownlinkOptions | None = None,
        feedback: str = "residual",
        exact_arrays: Sequence[str] = DEFAULT_EXACT,
        clients_per_round: int | None = None,
        clients_per_evaluation: int | None = None,
        evaluate_every: int = 1,
        evaluate_mode: EvaluateMode = "message",
        late_replies: LateReplies = "accept",
        min_replies: int = 1,
        node_timeout: float = 120.0,
        seed: int = 0,
        checkpoints: Checkpoints | None = None,
        checkpoint_every: int = 1,
        observers: Sequence[RoundObserver] = (),
        **fedavg: Any,
    ) -> None:
        super().__init__(**fedavg)
        if min_replies < 1:
            raise ConfigError(f"min_replies = {min_replies} is not at least 1")
        self.codec = build_codec(codec)
        build_feedback(feedback)  # refuses a spec that clients would refuse
        self.downlink = downlink or DownlinkOptions()
        self.exact_arrays = tuple(exact_arrays)
        self.clients_per_round = clients_per_round
        self.clients_per_evaluation = clients_per_evaluation
        self.evaluate_every = evaluate_every
        self.evaluate_mode = evaluate_mode
        self.late_replies = late_replies
        self.min_replies = min_replies
        self.node_timeout = node_timeout
        self.checkpoint_every = checkpoint_every
        self.selection: Selection = UniformSelection(seed)
        self._checkpoints = checkpoints
        self._messenger = Messenger(
            build_downlink(self.downlink, seed=seed), ReplyRules(codec, feedback, seed)
        )
        self._log = RoundLog(observers)
        self._correspondence = Correspondence(self._messenger, self._log)
        self._model = GlobalModel()
        self._rounds_before = 0  # of a run that is resumed; Flower's loop begins with 1 again

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

    def optimizer_state(self) -> dict[str, Vector]:
        """Return what :meth:`step` remembers, for a checkpoint."""
        return {}

    def restore_optimizer(self, vectors: dict[str, Vector]) -> None:
        """Go on from what :meth:`optimizer_state` returned."""

    def start(  # noqa: PLR0917
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
        *,
        resume: bool = False,
    ) -> Result:
        """Run the rounds as Flower does, with replies streamed and rounds recorded.

        Parameters
        ----------
        grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
            As for Flower's strategies.
        resume : bool
            Go on from the last checkpoint, if there is one, to a total of ``num_rounds``.

        Raises
        ------
        CheckpointError
            If the checkpoint cannot be used.
        """
        streaming = StreamingGrid(grid)
        if resume and self._checkpoints is not None and self._checkpoints.exists():
            self._resume(self._checkpoints, streaming)
            initial_arrays = self._model.arrays or initial_arrays
        else:
            self._adopt(initial_arrays)
        self._save(streaming, 0)
        before = self._rounds_before

        def evaluate_and_record(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if before and not server_round:
                return None
            with self._log.part("evaluate"):
                metrics = evaluate_fn(before + server_round, arrays) if evaluate_fn else None
            self._log.finish(metrics or {})
            due = not (before + server_round) % self.checkpoint_every
            if server_round and (due or before + server_round == num_rounds):
                self._save(streaming, server_round)
            return metrics

        with self._log.run(grid, num_rounds, first=before + 1 if before else 0):
            result = super().start(
                streaming,
                initial_arrays,
                num_rounds - before,
                timeout,
                train_config,
                evaluate_config,
                evaluate_and_record,
            )
        if not result.arrays:  # every round was refused
            result.arrays = initial_arrays
        return _renumbered(result, before)

    def summary(self) -> None:
        """Log the configuration."""
        _logger.info("uplink codec: %s", self.codec)
        _logger.info("downlink: %s, codec: %s", self.downlink.mode, self.downlink.codec)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose clients and write a message to each."""
        if self.fraction_train == 0.0 and self.clients_per_round is None:
            return []
        server_round += self._rounds_before
        with self._log.part("broadcast"):
            self._adopt(arrays)
            nodes = self._choose(
                grid,
                server_round,
                self.clients_per_round,
                self.fraction_train,
                self.min_train_nodes,
            )
            piggyback = self.evaluate_mode == "piggyback"
            return self._correspondence.open(
                server_round,
                nodes,
                config,
                MessageType.TRAIN,
                dense_bytes=self._model.dense_bytes,
                evaluate=piggyback and self._evaluation_due(server_round),
            )

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
        server_round += self._rounds_before
        self._log.pushed("send")
        taken = Collection(self._model.spec, self._messenger, self.weighted_by_key)
        for reply in self._correspondence.read(replies):
            self._log.received(reply, training=True, received=len(taken) + 1)
            with self._log.part("decode-aggregate"):
                self._take(reply, taken)
        self._log.missing(len(self._correspondence.unanswered))
        if self.late_replies == "refuse":
            self._messenger.ledger.close_all()
        with self._log.part("decode-aggregate"):
            if not self._complete(server_round, taken):
                taken.release()
                return None, None
            taken.commit()
            self._take_step(taken.total)
        aggregated = self.train_metrics_aggr_fn(taken.metrics, self.weighted_by_key)
        self._log.trained(aggregated)
        if taken.evaluations:
            self._log.evaluated(
                self.evaluate_metrics_aggr_fn(taken.evaluations, self.weighted_by_key)
            )
        return self._model.arrays, aggregated

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose clients to evaluate the model, in the rounds that are due."""
        server_round += self._rounds_before
        if self.evaluate_mode == "piggyback" or not self._evaluation_due(server_round):
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
            return self._correspondence.open(
                server_round,
                nodes,
                config,
                MessageType.EVALUATE,
                dense_bytes=self._model.dense_bytes,
            )

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the clients' metrics, weighted by their number of examples."""
        server_round += self._rounds_before
        if self.evaluate_mode == "piggyback" or not self._evaluation_due(server_round):
            return None
        self._log.pushed("evaluate")
        metrics: list[RecordDict] = []
        with self._log.part("evaluate"):
            for reply in self._correspondence.read(replies):
                self._log.received(reply, training=False, received=0)
                try:
                    if self._correspondence.answer(reply) is None:
                        continue
                    record, weight = open_reply(reply, self.weighted_by_key, least=0)
                except FlOptError as error:
                    self._correspondence.refuse(reply, error)
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
        model = self._model
        if model.adopt(arrays, self.exact_arrays):
            self._messenger.begin(model.spec, model.vector, model.exact)

    def _choose(
        self, grid: Grid, server_round: int, count: int | None, fraction: float, least: int
    ) -> list[int]:
        node_ids = wait_for_nodes(
            grid, max(self.min_available_nodes, count or least), self.node_timeout
        )
        wanted = max(int(len(node_ids) * fraction), least) if count is None else count
        return self.selection.select(node_ids, wanted, server_round)

    def _take(self, reply: Message, taken: Collection) -> None:
        """Take in a training reply, for what it is worth."""
        try:
            answer = self._correspondence.answer(reply)
            if answer is None:
                return
            update = taken.take(reply, answer)
        except NotOpenError as error:
            self._correspondence.ignore(reply, error)
        except FlOptError as error:
            self._correspondence.refuse(reply, error)
        else:
            self._log.accepted(reply, update.num_examples, stale=update.staleness > 0)
            self._correspondence.settled(reply)

    def _take_step(self, total: UpdateSum) -> None:
        delta, exact = total.mean()
        with np.errstate(over="ignore", invalid="ignore"):
            vector = self.step(self._model.vector, delta)
        if not np.isfinite(vector).all():
            raise ModelError("the server's step leads to NaN or infinity: lower its rate, eta")
        self._model.move(vector, exact)
        self._messenger.downlink.advance(vector, exact)

    def _complete(self, server_round: int, taken: Collection) -> bool:
        """Say whether the round may change the model."""
        if len(taken) < self.min_replies:
            _logger.warning(
                "round %d: %d usable replies, %d needed: the model stays as it was",
                server_round,
                len(taken),
                self.min_replies,
            )
            return False
        if not taken.total.is_finite():
            _logger.warning(
                "round %d: the sum of the updates overflows: the model stays as it was",
                server_round,
            )
            return False
        return True

    def _save(self, grid: StreamingGrid, server_round: int) -> None:
        if self._checkpoints is None:
            return
        progress = state.Progress(
            server_round=self._rounds_before + server_round,
            optimizer=dict(self.optimizer_state()),
            late=dict(grid.late),
        )
        with self._log.part("checkpoint"):
            state.save(self._checkpoints, progress, self._model, self._messenger, grid.inner)

    def _resume(self, checkpoints: Checkpoints, grid: StreamingGrid) -> None:
        progress = state.load(checkpoints, self._model, self._messenger, grid.inner)
        self._rounds_before = progress.server_round
        self.restore_optimizer(progress.optimizer)
        grid.late |= progress.late


def _renumbered(result: Result, before: int) -> Result:
    """Return a result whose rounds are counted from the beginning of the whole run."""
    for name in (
        "train_metrics_clientapp",
        "evaluate_metrics_clientapp",
        "evaluate_metrics_serverapp",
    ):
        metrics = getattr(result, name)
        setattr(result, name, {before + number: value for number, value in metrics.items()})
    return result
