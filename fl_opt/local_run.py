"""A run on this machine, from Python: :func:`run`.

The same apps that ``flwr run`` starts, on the virtual engine or on Ray.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from fl_opt.config import ConfigValue, FaultSettings, Settings, load_settings
from fl_opt.errors import ConfigError
from fl_opt.profiling.rounds import RoundObserver

if TYPE_CHECKING:
    from fl_opt.reporting import RunSummary

# Flower reads it when it is first imported, which is why its imports come later.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
# Torch's threads sleep while they wait instead of spinning, which on a busy machine takes the
# cores away from those that work. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SERVER_APP: Final = "fl_opt.server_app:app"
CLIENT_APP: Final = "fl_opt.client.app:app"
Engine: TypeAlias = Literal["virtual", "ray"]


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
    """Run a federation in simulation.

    Parameters
    ----------
    run_config : mapping, optional
        Settings under their flat keys; those that are missing have their defaults.
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
    observers : sequence of RoundObserver
        Told about the run as it goes, after its record was written.

    Returns
    -------
    RunSummary

    Raises
    ------
    FlOptError
        If something about the run is wrong; the message is one line.
    """
    config = dict(run_config or {})
    if num_supernodes is not None:
        config["simulation.num-supernodes"] = num_supernodes
    if workers is not None:
        config["simulation.workers"] = workers
    if output is not None:
        folder = Path(output).expanduser().absolute()
        config |= {"output.folder": str(folder.parent), "output.name": folder.name}
    settings = load_settings(config)
    _check(settings, engine)
    return _execute(settings, config, engine, observers, quiet)


def app_defaults(folder: Path) -> dict[str, ConfigValue]:
    """Return the run config of the app in a folder, which ``flwr run`` starts from.

    Parameters
    ----------
    folder : Path
        Nothing is returned if there is no app in it, or one with a ServerApp of its own.

    Raises
    ------
    ConfigError
        If there is a ``pyproject.toml`` that cannot be read.
    """
    from flwr.common.config import flatten_dict

    path = folder / "pyproject.toml"
    try:
        tool = tomllib.loads(path.read_text()).get("tool", {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    app = tool.get("flwr", {}).get("app", {})
    if app.get("components", {}).get("serverapp") != SERVER_APP:
        return {}
    return dict(flatten_dict(app.get("config", {})))


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
    settings: Settings,
    config: Mapping[str, ConfigValue],
    engine: str,
    observers: Sequence[RoundObserver],
    quiet: bool,
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
    told = [*observers] if quiet else [*observers, console_observer(settings)]
    summaries: list[RunSummary] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        own = load_settings(context.run_config)
        summaries.append(run_server(grid, own, told, engine=engine))

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
