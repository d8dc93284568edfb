"""The strategy that federates a model through codecs."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl_opt.checkpoint import Checkpoints
from fl_opt.codecs import build_codec
from fl_opt.errors import ConfigError, ModelError
from fl_opt.exchange.downlink import DownlinkOptions, build_downlink
from fl_opt.exchange.feedback import build_feedback
from fl_opt.exchange.rules import ReplyRules
from fl_opt.profiling.rounds import RoundObserver
from fl_opt.spans import span
from strategies.adaptation import Adaptation
from strategies.averaging import ModelAverage
from strategies.balance import Balance
from strategies.client_evaluation import ClientEvaluation
from strategies.collection import Collection
from strategies.correspondence import Correspondence
from strategies.loop import RoundLoop
from strategies.messenger import Messenger
from strategies.model import ExactArrays, GlobalModel
from strategies.nodes import wait_for_nodes
from strategies.norm_bound import NormBound
from strategies.pace import Pace, Rounds
from strategies.pruning import Pruning
from strategies.reductions import check_reductions
from strategies.roster import Roster
from strategies.selection import Selection, UniformSelection, build_selection
from strategies.staleness import build_staleness
from strategies.state import Memory
from strategies.training import LateReplies, Training, TrainingRules

Vector = NDArray[np.float32]
EvaluateMode = Literal["message", "piggyback"]

DEFAULT_EXACT: Final = ("*running_mean", "*running_var", "*num_batches_tracked")
"""Arrays of batch normalisation that are not trained, by PyTorch's names."""

_logger = logging.getLogger(__name__)


class CompressedStrategy(RoundLoop):
    """Federates a model through codecs: coded broadcast, streamed aggregation of coded updates.

    Clients are sent differences to what they hold. Their replies are decoded and added to one
    accumulator as they arrive, weighted by their number of examples, so that memory does not
    grow with the number of clients. A reply that is not exactly right is refused with a logged
    reason, and the round goes on without it; each update counts at most once, and one that does
    not count returns to its client's residual. Subclasses say what the updates do to the model,
    in :meth:`aggregate`.

    Parameters
    ----------
    codec : str
        Spec of what clients send; ``auto`` chooses for each client by its bandwidth, see
        :mod:`fl_opt.exchange.ladder`.
    downlink : DownlinkOptions
        How the model travels to clients.
    feedback : str
        Spec of what clients do about what the codec leaves out: ``none``, ``residual``,
        ``step_ahead`` or ``dgc``; see :mod:`fl_opt.exchange.feedback`.
    exact_arrays : sequence of str
        Patterns of names of arrays that travel exactly, beside those that are not
        floating-point.
    clients_per_round : int, optional
        Number of updates wanted for a step. Default: by ``fraction_train``.
    clients_per_evaluation : int, optional
        Number of clients that evaluate. Default: by ``fraction_evaluate``.
    selection : str or Selection
        Which clients train: a spec, see :mod:`strategies.selection`, or a policy of one's own.
    pace : Pace, optional
        How many clients are asked, and when there are enough updates for a step. Default:
        rounds, of which all replies are waited for.
    server_average : str
        Spec of which model is evaluated and returned; see :mod:`strategies.averaging`.
    balance : str
        Spec of how local work is sized; see :mod:`strategies.balance`.
    pruning : str
        Spec of what is taken out of the model, and when; see :mod:`strategies.pruning`.
    submodels : str
        Spec of who trains which part of it; see :mod:`fl_opt.exchange.submodels`.
    evaluate_every : int
        Clients evaluate every so many rounds; 0: never.
    evaluate_mode : {"message", "piggyback"}
        Whether they evaluate the round's new model, which takes messages of its own, or the
        model that they are about to train from.
    late_replies : {"accept", "refuse"}
        Whether a reply that comes after its round was closed is added to the next step, with a
        smaller weight, or returned to its client. Where they are accepted, clients that are
        still at work are not asked again.
    staleness : str
        Spec of the weight of late updates; see :mod:`strategies.staleness`.
    ttl : float, optional
        Seconds after which a client that has not answered is given up. Default: Flower's.
    max_update_norm : str
        Spec of the largest update that is believed; see :mod:`strategies.norm_bound`.
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
    spans : bool
        Whether records say what each part of a round consisted of, on both sides.
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
        selection: str | Selection = "uniform",
        pace: Pace | None = None,
        server_average: str = "none",
        balance: str = "none",
        pruning: str = "none",
        submodels: str = "none",
        evaluate_every: int = 1,
        evaluate_mode: EvaluateMode = "message",
        late_replies: LateReplies = "accept",
        staleness: str = "polynomial(0.5)",
        ttl: float | None = None,
        max_update_norm: str = "auto",
        min_replies: int = 1,
        node_timeout: float = 120.0,
        seed: int = 0,
        checkpoints: Checkpoints | None = None,
        checkpoint_every: int = 1,
        observers: Sequence[RoundObserver] = (),
        spans: bool = False,
        **fedavg: Any,
    ) -> None:
        self._adaptation = Adaptation(codec, downlink or DownlinkOptions())
        codec, self.downlink = self._adaptation.codec, self._adaptation.downlink
        super().__init__(
            GlobalModel(),
            Messenger(
                build_downlink(self.downlink, seed=seed),
                ReplyRules(codec, feedback, seed, submodels=submodels, spans=spans),
                Pruning(pruning),
                self._adaptation,
            ),
            ModelAverage(server_average),
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
            observers=observers,
            spans=spans,
            **fedavg,
        )
        if min_replies < 1:
            raise ConfigError(f"min_replies = {min_replies} is not at least 1")
        self.codec = build_codec(codec)
        check_reductions(
            pruning,
            submodels,
            codecs={"codec": codec, "downlink codec": self.downlink.codec},
            takes_parts=self.takes_parts,
        )
        build_feedback(feedback)  # refuses a spec that clients would refuse
        self.feedback = feedback
        self.exact_arrays = tuple(exact_arrays)
        self.clients_per_round = clients_per_round
        self.clients_per_evaluation = clients_per_evaluation
        self.evaluate_every = evaluate_every
        self.evaluate_mode = evaluate_mode
        self.pace = pace or Rounds()
        self.staleness = build_staleness(staleness)
        self.min_replies = min_replies
        self.node_timeout = node_timeout
        self.ttl = ttl
        self._correspondence = Correspondence(self._messenger, self._log)
        self._evaluators = UniformSelection(seed)
        self._evaluation = ClientEvaluation(
            self._correspondence, self._log, self.weighted_by_key
        )
        policy = build_selection(selection, seed) if isinstance(selection, str) else selection
        self._roster = Roster(policy, node_timeout)
        self._balance = Balance(balance)
        self._bound = NormBound(max_update_norm)
        self._training = Training(
            TrainingRules(
                self.pace,
                late_replies,
                self.weighted_by_key,
                self.scale,
                self._bound,
                keep_updates=self.keeps_updates,
                ttl=ttl,
            ),
            roster=self._roster,
            balance=self._balance,
            adaptation=self._adaptation,
            model=self._model,
            messenger=self._messenger,
            correspondence=self._correspondence,
            log=self._log,
        )

    keeps_updates = False
    """Whether :meth:`aggregate` needs the updates one by one, beside their sum."""
    takes_parts = True
    """Whether it makes sense of updates that cover a part of the model only."""

    def scale(self, metrics: MetricRecord, staleness: int) -> float:
        """Return the factor of an update, which has its number of examples as its weight.

        Parameters
        ----------
        metrics : MetricRecord
            That came with the update.
        staleness : int
            Versions between the model that it started from and the one it is added to.
        """
        return self.staleness.weight(staleness)

    def write_messages(
        self,
        server_round: int,
        config: ConfigRecord,
        grid: Grid,
        nodes: Sequence[int],
        *,
        evaluate: bool,
    ) -> list[Message]:
        """Return a training message to each node; ``evaluate``: evaluate before training."""
        return self._training.open(server_round, config, nodes, evaluate=evaluate)

    @abstractmethod
    def aggregate(
        self, server_round: int, taken: Collection
    ) -> tuple[Vector, ExactArrays, MetricRecord] | None:
        """Return what a round makes of the model.

        Parameters
        ----------
        server_round : int
            From 1.
        taken : Collection
            The updates; :attr:`keeps_updates` says whether they are there one by one.

        Returns
        -------
        vector : ndarray of float32, shape (size,)
            The next model, in memory of its own.
        exact : dict of str to ndarray
            The arrays beside it.
        metrics : MetricRecord
            The clients', aggregated.

        None in place of all: the model stays as it was, and the updates return to clients.
        """

    def optimizer_state(self) -> dict[str, Vector]:
        """Return what :meth:`aggregate` remembers of earlier rounds, for a checkpoint."""
        return {}

    def restore_optimizer(self, vectors: dict[str, Vector]) -> None:
        """Go on from what :meth:`optimizer_state` returned."""

    def adopt(self, arrays: ArrayRecord) -> None:
        """Take over a model that was set from outside; our own last one is known already."""
        model = self._model
        if model.adopt(arrays, self.exact_arrays):
            self._messenger.begin(model.spec, model.vector, model.exact)
            self._average.begin()

    def memory(self) -> Memory:
        """Return what the next round depends on, beside the model and the books."""
        return Memory(
            self.optimizer_state(),
            self._roster.state(),
            self._balance.state(),
            self._messenger.pruning.state(),
            self._adaptation.state(),
            self._average.state(),
            self._bound.state(),
        )

    def remember(self, memory: Memory) -> None:
        """Go on from what :meth:`memory` returned."""
        self.restore_optimizer(memory.optimizer)
        self._roster.restore(memory.roster)
        self._balance.restore(memory.balance)
        self._messenger.pruning.restore(memory.pruning, self._model.spec.size)
        self._adaptation.restore(memory.adaptation)
        self._average.restore(memory.average, self._model.spec.size)
        self._bound.restore(memory.norms)

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
            self.adopt(arrays)
            count, least = self.clients_per_round, self.min_train_nodes
            connected = self._roster.look(grid, self._needed(count, least))
            config.pop("pruned", None)  # of a model that was replaced since
            if self._messenger.pruning.alive is not None:
                config["pruned"] = True
            piggyback = self.evaluate_mode == "piggyback"
            wanted = count or max(int(connected * self.fraction_train), least)
            return self.write_messages(
                server_round,
                config,
                grid,
                self._training.choose(grid, wanted),
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
        taken = self._training.collect(replies)
        with self._log.part("decode-aggregate"):
            if not self._complete(server_round, taken):
                taken.release()
                return None, None
            with span("step"):
                found = self.aggregate(server_round, taken)
            if found is None:
                taken.release()
                return None, None
            vector, exact, aggregated = found
            if not np.isfinite(vector).all():
                raise ModelError(
                    "the server's step leads to NaN or infinity: lower its rate, eta"
                )
            taken.commit()
            with span("encode"):
                vector = self._messenger.advance(server_round, vector, exact)
            self._model.move(vector, exact)
            self._average.add(vector)
        self._log.trained(aggregated)
        loss = aggregated.get("train-loss")
        self._adaptation.end_round(loss if isinstance(loss, float) else None)
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
            self.adopt(arrays)
            count, least = self.clients_per_evaluation, self.min_evaluate_nodes
            nodes = wait_for_nodes(grid, self._needed(count, least), self.node_timeout)
            count = count or max(int(len(nodes) * self.fraction_evaluate), least)
            return self._evaluation.open(
                server_round,
                self._evaluators.select(nodes, count, server_round),
                config,
                dense_bytes=self._model.dense_bytes,
                ttl=self.ttl,
            )

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the clients' metrics, weighted by their number of examples."""
        server_round += self._rounds_before
        if self.evaluate_mode == "piggyback" or not self._evaluation_due(server_round):
            return None
        self._log.pushed("evaluate")
        with self._log.part("evaluate"):
            metrics = self._evaluation.collect(replies)
        if not metrics:
            return None
        aggregated = self.evaluate_metrics_aggr_fn(metrics, self.weighted_by_key)
        self._log.evaluated(aggregated)
        return aggregated

    def _needed(self, count: int | None, least: int) -> int:
        return max(self.min_available_nodes, count or least)

    def _evaluation_due(self, server_round: int) -> bool:
        someone = self.fraction_evaluate > 0.0 or self.clients_per_evaluation is not None
        return someone and bool(self.evaluate_every) and not server_round % self.evaluate_every

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
