"""Flower's loop of rounds, with what it lacks: streaming, records, checkpoints."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from fl_opt.checkpoint import Checkpoints
from fl_opt.errors import CheckpointError
from fl_opt.profiling.rounds import RoundObserver
from strategies import state
from strategies.averaging import ModelAverage
from strategies.messenger import Messenger
from strategies.model import GlobalModel
from strategies.round_log import RoundLog
from strategies.streaming import StreamingGrid

logger = logging.getLogger(__name__)

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class RoundLoop(FedAvg):
    """Runs Flower's loop on a streaming Grid, records its rounds and can be resumed.

    Parameters
    ----------
    model : GlobalModel
    messenger : Messenger
    average : ModelAverage
        Of the models of all rounds: what is evaluated and returned in place of the last one.
    checkpoints : Checkpoints or None
        Where all that is needed to go on is written.
    checkpoint_every : int
        Rounds from one checkpoint to the next; one is written at the end in any case.
    observers : sequence of RoundObserver
        Told about the run as it goes.
    spans : bool
        Whether records say what each part of a round consisted of.
    **fedavg
        Of :class:`flwr.serverapp.strategy.FedAvg`.
    """

    def __init__(
        self,
        model: GlobalModel,
        messenger: Messenger,
        average: ModelAverage,
        *,
        checkpoints: Checkpoints | None,
        checkpoint_every: int,
        observers: Sequence[RoundObserver],
        spans: bool,
        **fedavg: Any,
    ) -> None:
        super().__init__(**fedavg)
        self.checkpoint_every = checkpoint_every
        self._model = model
        self._messenger = messenger
        self._average = average
        self._checkpoints = checkpoints
        self._log = RoundLog(observers, spans=spans)
        self._rounds_before = 0  # of a run that is resumed; Flower's loop begins with 1 again

    @abstractmethod
    def adopt(self, arrays: ArrayRecord) -> None:
        """Take over a model that was set from outside; our own last one is known already."""

    @abstractmethod
    def memory(self) -> state.Memory:
        """Return what the next round depends on, beside the model and the books."""

    @abstractmethod
    def remember(self, memory: state.Memory) -> None:
        """Go on from what :meth:`memory` returned."""

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
            self.adopt(initial_arrays)
        self._save(streaming, 0)
        before = self._rounds_before

        def evaluate_and_record(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if before and not server_round:
                return None
            with self._log.part("evaluate"):
                shown = self._shown(arrays)
                metrics = evaluate_fn(before + server_round, shown) if evaluate_fn else None
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
        result.arrays = self._shown(result.arrays)
        return _renumbered(result, before)

    def _shown(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return the model that counts, given the last one."""
        mean = self._average.vector
        return arrays if mean is None else self._model.packed(mean)

    def _save(self, grid: StreamingGrid, server_round: int) -> None:
        if self._checkpoints is None:
            return
        grid.give_back()
        progress = state.Progress(
            server_round=self._rounds_before + server_round,
            memory=self.memory(),
            late=dict(grid.late),
            longest=grid.patience.longest,
        )
        with self._log.part("checkpoint"):
            try:
                state.save(
                    self._checkpoints, progress, self._model, self._messenger, grid.inner
                )
            except CheckpointError as error:
                if not server_round:  # nothing is lost yet, and it can be mended
                    raise
                logger.warning(
                    "round %d: no checkpoint, the last one stays: %s",
                    progress.server_round,
                    error,
                )

    def _resume(self, checkpoints: Checkpoints, grid: StreamingGrid) -> None:
        progress = state.load(checkpoints, self._model, self._messenger, grid.inner)
        self._rounds_before = progress.server_round
        self.remember(progress.memory)
        grid.late |= progress.late
        grid.patience.longest = progress.longest


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
