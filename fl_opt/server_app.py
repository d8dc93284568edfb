"""The ServerApp that ``pyproject.toml`` names: federates a model and records the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fl_opt.config import Settings, load_settings
from fl_opt.data import load_dataset
from fl_opt.exchange.records import pack_arrays, unpack_arrays
from fl_opt.models import build_model
from fl_opt.profiling.rounds import RoundObserver
from fl_opt.reporting import RunRecorder, RunSummary, console_observer, print_summary
from fl_opt.training import evaluate, get_arrays, set_arrays
from strategies import build_strategy

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
    recorder = RunRecorder(settings, engine=engine)
    strategy = build_strategy(settings, [recorder, *observers])

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
    )
    if settings.output.save_model:
        named = unpack_arrays(result.arrays)
        np.savez(recorder.folder / "model.npz", **named)  # type: ignore[arg-type]
    return recorder.summary()


def _is_due(server_round: int, settings: Settings) -> bool:
    every = settings.evaluate.central_every
    last = settings.num_server_rounds
    return bool(every) and (server_round % every == 0 or server_round == last)
