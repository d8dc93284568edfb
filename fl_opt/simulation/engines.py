"""The same two apps on either engine: virtual, or Ray (Flower's own runtime).

Both hand the run config to the apps as ``flwr run`` does, in ``context.run_config``.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid, ServerApp

from fl_opt.errors import ConfigError
from fl_opt.simulation.devices import DeviceModel
from fl_opt.simulation.faults import FaultPlan
from fl_opt.simulation.grid import VirtualGrid
from fl_opt.simulation.identity import VIRTUAL_RUN_ID
from fl_opt.simulation.loading import ClientAppSource
from fl_opt.simulation.pool import build_runner
from fl_opt.simulation.proxy import GridProxy
from fl_opt.simulation.resources import worker_count

RunConfig = Mapping[str, UserConfigValue]

_GRACE = 10.0  # seconds that a client may take to finish its work after Ctrl-C


def run_virtual(
    server_app: ServerApp,
    client_app: ClientAppSource,
    run_config: RunConfig,
    num_supernodes: int,
    devices: DeviceModel,
    *,
    faults: FaultPlan | None = None,
    workers: int = 1,
) -> Context:
    """Run a federation on this machine, on a virtual clock.

    The result does not depend on the number of processes that clients run in.

    Parameters
    ----------
    server_app : ServerApp
        Called with a :class:`~fl_opt.simulation.grid.VirtualGrid`.
    client_app : ClientApp or str
        The app, or where it is imported from, ``"package.module:attribute"``; worker processes
        cannot be handed every app as an object.
    run_config : mapping
        Flat run config for both apps.
    num_supernodes : int
        Number of clients.
    devices : DeviceModel
        Their links and speeds.
    faults : FaultPlan, optional
        What goes wrong; nothing by default.
    workers : int
        Processes that clients run in; 1: this one, 0: as many as there are cores for.

    Returns
    -------
    Context
        The ServerApp's, with what it left in ``state``.

    Raises
    ------
    ConfigError
        If there is no such app, or it cannot be handed to worker processes.
    """
    context = _server_context(VIRTUAL_RUN_ID, run_config)
    with build_runner(client_app, worker_count(workers, num_supernodes)) as runner:
        grid = VirtualGrid(
            runner, num_supernodes, devices, run_config=run_config, faults=faults
        )
        server_app(grid=grid, context=context)
    return context


def run_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    run_config: RunConfig,
    num_supernodes: int,
) -> Context:
    """Run a federation on Flower's simulation runtime: one Ray actor for each CPU.

    Parameters
    ----------
    server_app : ServerApp
        Runs in a thread of this process.
    client_app : ClientApp
        Runs in Ray actors, with one thread each for numerical libraries.
    run_config : mapping
        Flat run config for both apps.
    num_supernodes : int
        Number of clients.

    Returns
    -------
    Context
        The ServerApp's, with what it left in ``state``.

    Raises
    ------
    ConfigError
        If Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine 'ray' needs Ray: pip install 'flwr[simulation]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # seconds to import: only for those who use it
    from flwr.simulation import run_simulation

    server = _ConfiguredServerApp(server_app, run_config, num_supernodes)
    threads = set(threading.enumerate())
    try:
        with _without_noise():
            run_simulation(
                server_app=server,
                client_app=_ConfiguredClientApp(client_app, run_config),
                num_supernodes=num_supernodes,
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                    "init_args": {"logging_level": "ERROR", "log_to_driver": False},
                },
            )
    finally:
        # After Ctrl-C the ServerApp is still running, and threads of Flower's wait for clients;
        # without Ray they would wait for ever.
        server.stop()
        try:
            _join(set(threading.enumerate()) - threads)
        finally:
            ray.shutdown()
    return server.context


class _ConfiguredClientApp(ClientApp):
    """A ClientApp that sees a run config, which Flower's Python API leaves empty."""

    def __init__(self, app: ClientApp, run_config: RunConfig) -> None:
        super().__init__()
        self._app = app
        self._run_config = dict(run_config)

    def __call__(self, message: Message, context: Context) -> Message:
        # Flower refuses a context whose run config has changed: the app gets its own.
        own = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=context.node_config,
            state=context.state,
            run_config=dict(self._run_config),
            series_id=context.series_id,
        )
        reply = self._app(message, own)
        context.state = own.state
        return reply


class _ConfiguredServerApp(ServerApp):
    """A ServerApp that sees a run config and can be stopped from another thread.

    Flower starts it before its clients are registered; here it starts when all are there.
    """

    def __init__(self, app: ServerApp, run_config: RunConfig, num_supernodes: int) -> None:
        super().__init__()
        self._app = app
        self._run_config = run_config
        self._num_supernodes = num_supernodes
        self._stopped = threading.Event()
        self.context = _server_context(VIRTUAL_RUN_ID, run_config)

    def __call__(self, grid: Grid, context: Context) -> None:
        self.context = _server_context(context.run_id, self._run_config)
        while len(list(grid.get_node_ids())) < self._num_supernodes:
            if self._stopped.wait(0.05):
                return
        try:
            self._app(grid=_StoppableGrid(grid, self._stopped), context=self.context)
        except KeyboardInterrupt:
            if not self._stopped.is_set():
                raise

    def stop(self) -> None:
        """Interrupt the ServerApp at its next look for messages, if it is still running."""
        self._stopped.set()


class _StoppableGrid(GridProxy):
    """A Grid that passes Ctrl-C, which only the main thread gets, to the ServerApp's thread."""

    def __init__(self, grid: Grid, stopped: threading.Event) -> None:
        super().__init__(grid)
        self._stopped = stopped

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._check()
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._check()
        return super().pull_messages(message_ids)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt


def _join(threads: Iterable[threading.Thread]) -> None:
    deadline = time.monotonic() + _GRACE
    for thread in threads:
        if not thread.daemon:
            thread.join(max(deadline - time.monotonic(), 0.0))


def _server_context(run_id: int, run_config: RunConfig) -> Context:
    return Context(
        run_id=run_id,
        node_id=SUPERLINK_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )


@contextmanager
def _without_noise() -> Iterator[None]:
    """Hold back what Flower and Ray say that is no news to the user.

    That is the advice to use ``flwr run`` instead; the tracebacks of clients that fail, as
    the ServerApp hears of each failure and says so; and what Ray's next version will do.
    """
    logger = logging.getLogger("flwr")

    def is_news(record: logging.LogRecord) -> bool:
        if record.module in ("vce_api", "raybackend"):
            return record.funcName not in ("worker", "process_message")
        return "`run_simulation` function is deprecated" not in record.getMessage()

    logger.addFilter(is_news)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
            yield
    finally:
        logger.removeFilter(is_news)
