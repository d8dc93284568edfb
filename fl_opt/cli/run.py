"""To train on this machine: ``fl-opt run``, and ``run_simulation.py`` of the project."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_opt.cli.mistakes import mistakes_in_one_line
from fl_opt.cli.options import RunConfig
from fl_opt.errors import ConfigError
from fl_opt.local_run import Engine, app_defaults
from fl_opt.local_run import run as run_here
from fl_opt.run_config import parse_run_config

if TYPE_CHECKING:
    from fl_opt.reporting import RunSummary


def run_command(folder: Path) -> Callable[..., None]:
    """Return the command, with the settings that the ``pyproject.toml`` in a folder has.

    Parameters
    ----------
    folder : Path
        Where there is none, or that of an app with a ServerApp of its own, the settings'
        own defaults hold.
    """

    def run(
        *,
        engine: Annotated[
            Engine,
            typer.Option(help="With a virtual clock, or Flower's runtime on Ray."),
        ] = "virtual",
        num_supernodes: Annotated[
            int | None,
            typer.Option(help="Number of clients  [default: simulation.num-supernodes]"),
        ] = None,
        run_config: RunConfig = None,
        workers: Annotated[
            int | None,
            typer.Option(
                help="Processes that virtual clients run in; 0: as many as there are cores "
                "for  [default: simulation.workers]"
            ),
        ] = None,
        output: Annotated[
            Path | None,
            typer.Option(help="Folder for the record of the run  [default: runs/<time>]"),
        ] = None,
        trace: Annotated[
            Path | None,
            typer.Option(help="Write the run as a trace for ui.perfetto.dev into this file."),
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
        ] = False,
    ) -> None:
        """Train a federated model on this machine and print what it cost."""
        from flwr.supercore.logger import update_console_handler

        if "FLWR_LOG_LEVEL" not in os.environ:
            update_console_handler(level="WARNING")  # progress is shown in our own way
        try:
            with mistakes_in_one_line():
                config = {**app_defaults(folder), **parse_run_config(run_config or [])}
                summary = run_here(
                    config, engine, num_supernodes, output, quiet=as_json, workers=workers
                )
                if trace is not None:
                    _write_trace(summary, trace)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            if engine == "ray":  # its native threads may hang in the interpreter's teardown
                os._exit(130)
            raise typer.Exit(130) from None
        _print(summary, as_json)

    return run


def _write_trace(summary: RunSummary, path: Path) -> None:
    from fl_opt.reporting import load_run
    from fl_opt.reporting.trace import write_trace

    try:
        write_trace(load_run(summary.info.folder), path)
    except OSError as error:
        raise ConfigError(
            f"--trace {path}: {error.strerror}; the run is kept: fl-opt trace "
            f"{summary.info.folder} -o FILE writes it elsewhere"
        ) from None


def _print(summary: RunSummary, as_json: bool) -> None:
    from fl_opt.reporting import print_summary
    from fl_opt.reporting.strict_json import to_json

    if as_json:
        typer.echo(to_json(summary.to_dict()))
    else:
        print_summary(summary)
