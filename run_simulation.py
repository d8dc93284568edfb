"""Train a federated model on this machine and print what it cost.

``python run_simulation.py`` runs the default config of ``pyproject.toml``; ``--help`` lists
the options. From Python::

    from run_simulation import run
    summary = run({"uplink.codec": "int8", "num-server-rounds": 5})
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, get_args

import typer

from fl_opt.config import ConfigValue, FaultSettings, Settings, load_settings
from fl_opt.errors import ConfigError, FlOptError
from fl_opt.run_config import parse_run_config

if TYPE_CHECKING:
    from fl_opt.reporting import RunSummary

# Flower reads it when it is first imported, which is why its imports come later.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
# Torch's threads sleep while they wait instead of spinning, which on a busy machine takes the
# cores away from those that work. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["cli", "parse_run_config", "run"]

PROJECT = Path(__file__).resolve().parent
CLIENT_APP = "fl_opt.client.app:app"
Engine: TypeAlias = Literal["virtual", "ray"]


def run(
    run_config: Mapping[str, ConfigValue] | None = None,
    engine: Engine = "virtual",
    num_supernodes: int | None = None,
    output: Path | str | None = None,
    quiet: bool = False,
    *,
    workers: int | None = None,
) -> RunSummary:
    """Run a federation in simulation.

    Parameters
    ----------
    run_config : mapping, optional
        Overrides of the default config, under the same flat keys.
    engine : {"virtual", "ray"}
        With a virtual clock, or Flower's simulation runtime on Ray.
    num_supernodes : int, optional
        Number of clients; short for ``simulation.num-supernodes``.
    output : path, optional
        Folder for the record of the run; short for ``output.folder`` and ``output.name``.
    quiet : bool
        Show no progress.
    workers : int, optional
        Processes that clients of the virtual engine run in, 0 for as many as there are cores
        for; short for ``simulation.workers``. A script that asks for more than 1 needs the
        ``if __name__ == "__main__":`` of :mod:`multiprocessing`.

    Returns
    -------
    RunSummary

    Raises
    ------
    FlOptError
        If something about the run is wrong; the message is one line.
    """
    config = {**_default_config(), **(run_config or {})}
    if num_supernodes is not None:
        config["simulation.num-supernodes"] = num_supernodes
    if workers is not None:
        config["simulation.workers"] = workers
    if output is not None:
        folder = Path(output).expanduser().absolute()
        config |= {"output.folder": str(folder.parent), "output.name": folder.name}
    settings = load_settings(config)
    _check(settings, engine)
    return _execute(settings, config, engine, quiet)


def _default_config() -> dict[str, ConfigValue]:
    """Return the config that ``flwr run`` starts from."""
    from flwr.common.config import flatten_dict, get_project_config

    app = get_project_config(PROJECT)["tool"]["flwr"]["app"]
    return dict(flatten_dict(app["config"]))


def _check(settings: Settings, engine: str) -> None:
    """Refuse what cannot work before anything is loaded."""
    from strategies import build_strategy

    if engine not in get_args(Engine):
        raise ConfigError(f"engine {engine!r} is not one of {', '.join(get_args(Engine))}")
    clients = settings.simulation.num_supernodes
    for key, wanted in (
        ("round.clients", settings.round.clients),
        ("evaluate.clients", settings.evaluate.clients),
        ("round.min-replies", settings.round.min_replies),
        ("round.min-nodes", settings.round.min_nodes),
    ):
        if wanted > clients:
            raise ConfigError(
                f"setting {key!r} = {wanted}: more participants than clients ({clients})"
            )
    build_strategy(settings)
    if engine != "virtual" and settings.faults != FaultSettings():
        raise ConfigError(f"engine {engine!r} has no faults: they are simulated by 'virtual'")
    if engine != "virtual" and settings.simulation.workers != 1:
        raise ConfigError(
            f"setting 'simulation.workers' = {settings.simulation.workers}: engine {engine!r} "
            "has a process for each core anyway; workers are those of 'virtual'"
        )


def _execute(
    settings: Settings, config: Mapping[str, ConfigValue], engine: str, quiet: bool
) -> RunSummary:
    """Load what is heavy, and run."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    from fl_opt.reporting import console_observer
    from fl_opt.server_app import run_server
    from fl_opt.simulation import build_device_model
    from fl_opt.simulation.engines import run_ray, run_virtual
    from fl_opt.simulation.faults import build_fault_plan

    _use_one_thread()
    observers = [] if quiet else [console_observer(settings)]
    summaries: list[RunSummary] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        own = load_settings(context.run_config)
        summaries.append(run_server(grid, own, observers, engine=engine))

    clients = settings.simulation.num_supernodes
    if engine == "ray":
        from fl_opt.client.app import app as client_app

        run_ray(server_app, client_app, config, clients)
    else:
        devices = build_device_model(settings.simulation, settings.seed)
        faults = build_fault_plan(settings.faults, settings.seed)
        workers = settings.simulation.workers
        run_virtual(
            server_app, CLIENT_APP, config, clients, devices, faults=faults, workers=workers
        )
    return summaries[0]


def _use_one_thread() -> None:
    """Train with one thread, as Ray's actors do, unless the environment asks for more.

    Models here are small: threads that wait for each other cost more than they bring, above
    all on a busy machine, and the result would depend on the number of cores.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(
    *,
    engine: Annotated[
        Engine,
        typer.Option(help="With a virtual clock, or Flower's runtime on Ray."),
    ] = "virtual",
    num_supernodes: Annotated[
        int | None,
        typer.Option(help="Number of clients  [default: simulation.num-supernodes]"),
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config",
            "-c",
            help="Overrides as for `flwr run`: \"seed=7 uplink.codec='int8'\", or a TOML "
            "file; may be repeated.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that virtual clients run in; 0: as many as there are cores for  "
            "[default: simulation.workers]"
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
        overrides = parse_run_config(run_config or [])
        summary = run(overrides, engine, num_supernodes, output, quiet=as_json, workers=workers)
        if trace is not None:
            _write_trace(summary, trace)
    except FlOptError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        if engine == "ray":  # its native threads may hang in the interpreter's teardown
            os._exit(130)
        raise typer.Exit(130) from None
    _print(summary, as_json)


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


if __name__ == "__main__":
    cli()
