"""The ServerApp that ``pyproject.toml`` names: federates a model and records the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fl_opt.checkpoint import Checkpoints
from fl_opt.config import Settings, load_settings
from fl_opt.data import load_dataset
from fl_opt.errors import ConfigError
from fl_opt.exchange.records import pack_arrays, unpack_arrays
from fl_opt.models import build_model
from fl_opt.profiling.rounds import RoundObserver
from fl_opt.reporting import RunRecorder, RunSummary, console_observer, print_summary
from fl_opt.reporting.tensorboard import TensorBoardWriter
from fl_opt.training import evaluate, get_arrays, set_arrays
from strategies import build_strategy
from strategies.state import saved_round

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run with the settings of the run config, and print progress and summary."""
    settings = load_settings(context.run_config)
    print_summary(run_server(grid, settings, [console_observer(settings)]))


def run_server(
    grid: Grid,
    settings: Settings,
    observers: Sequence[RoundObserver] = (),
    *,
    engine: str = "flower",
) -> RunSummary:
    """Federate the model that the settings describe.

    Parameters
    ----------
    grid : Grid
        Of any engine.
    settings : Settings
    observers : sequence of RoundObserver
        Told about the run as it goes, after the recorder.
    engine : str
        Name of the engine, for the record.

    Returns
    -------
    RunSummary
        The record itself lies in ``output.folder``.

    Raises
    ------
    ConfigError, DataError, ModelError
        Before anything is sent, where a setting, dataset or model is at fault.
    """
    dataset = load_dataset(settings, settings.simulation.num_supernodes)
    model = build_model(settings.model, dataset.info, settings.seed)
    recorder = RunRecorder(settings, engine=engine, resume=settings.resume)
    told = [recorder, *observers]
    if settings.output.tensorboard:
        told.append(TensorBoardWriter(recorder.folder))
    with open_checkpoints(settings, recorder.folder) as checkpoints:
        strategy = build_strategy(settings, told, checkpoints)

        if settings.resume and checkpoints is not None:
            recorder.resume_from(saved_round(checkpoints) or -1)  # round 0 is evaluated anew

        def evaluate_model(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if not _is_due(server_round, settings):
                return None
            set_arrays(model, unpack_arrays(arrays))
            result = evaluate(model, dataset.test)
            return MetricRecord({"loss": result.loss, "accuracy": result.accuracy})

        result = strategy.start(
            grid,
            pack_arrays(get_arrays(model)),
            num_rounds=settings.num_server_rounds,
            timeout=settings.round.timeout,
            evaluate_fn=evaluate_model,
            resume=settings.resume,
        )
    if settings.output.save_model:
        named = unpack_arrays(result.arrays)
        np.savez(recorder.folder / "model.npz", **named)  # type: ignore[arg-type]
    return recorder.summary()


@contextmanager
def open_checkpoints(settings: Settings, folder: Path) -> Iterator[Checkpoints | None]:
    """Open the folder of checkpoints, for this process alone; None if there are to be none.

    Raises
    ------
    ConfigError
        If a run is to be resumed from checkpoints that it does not write.
    CheckpointError
        If another process has opened it.
    """
    if settings.resume and not settings.checkpoint.every:
        raise ConfigError("setting 'resume' = True: needs checkpoint.every of at least 1")
    if settings.resume and not settings.output.name:
        raise ConfigError("setting 'resume' = True: needs the output.name of the run")
    if not settings.checkpoint.every:
        yield None
        return
    place = settings.checkpoint.folder
    with Checkpoints(Path(place).expanduser() if place else folder / "checkpoint") as opened:
        yield opened


def _is_due(server_round: int, settings: Settings) -> bool:
    every = settings.evaluate.central_every
    last = settings.num_server_rounds
    return bool(every) and (server_round % every == 0 or server_round == last)
