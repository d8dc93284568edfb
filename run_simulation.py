"""Train a federated model on this machine and print what it cost.

``python run_simulation.py`` runs the default config of ``pyproject.toml``; ``--help`` lists
the options. ``fl-opt run`` is the same command, for the folder it is called in. From Python::

    from run_simulation import run
    summary = run({"uplink.codec": "int8", "num-server-rounds": 5})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fl_opt.cli.run import run_command
from fl_opt.config import ConfigValue
from fl_opt.local_run import Engine, app_defaults
from fl_opt.local_run import run as run_here
from fl_opt.profiling.rounds import RoundObserver
from fl_opt.run_config import parse_run_config

if TYPE_CHECKING:
    from fl_opt.reporting import RunSummary

__all__ = ["cli", "parse_run_config", "run"]

PROJECT = Path(__file__).resolve().parent


def run(
    run_config: Mapping[str, ConfigValue] | None = None,
    engine: Engine = "virtual",
    num_supernodes: int | None = None,
    output: Path | str | None = None,
    quiet: bool = False,
    *,
    workers: int | None = None,
    observers: Sequence[RoundObserver] = (),
) -> RunSummary:
    """Run a federation in simulation, with the settings of the project's ``pyproject.toml``.

    Parameters, result and errors are those of :func:`fl_opt.local_run.run`; ``run_config``
    holds what is to be different.
    """
    config = {**app_defaults(PROJECT), **(run_config or {})}
    return run_here(
        config, engine, num_supernodes, output, quiet, workers=workers, observers=observers
    )


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
cli.command()(run_command(PROJECT))

if __name__ == "__main__":
    cli()
