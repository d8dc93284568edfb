"""The job of ``benchmarks.scale``: many small clients, on an engine, in this process."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.logger import update_console_handler
from numpy.typing import NDArray
from torch import nn

from fl_opt.client.numpy_client import numpy_client_app
from fl_opt.client.torch_client import TorchClient
from fl_opt.config import ConfigValue, Settings, load_settings
from fl_opt.data import ClientData, Examples, TaskInfo
from fl_opt.exchange.records import pack_arrays
from fl_opt.models import build_model
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.seeds import derive_seed
from fl_opt.simulation import build_device_model
from fl_opt.simulation.engines import run_ray, run_virtual
from fl_opt.training import get_arrays
from strategies import build_strategy

INFO = TaskInfo("tabular", (64,), 10)
EXAMPLES = 200
APP = "benchmarks.scale_job:client_app"
CONFIG: dict[str, ConfigValue] = {
    "train.local-epochs": 1,
    "train.device": "cpu",
    "evaluate.federated-every": 0,
    "evaluate.central-every": 0,
    # What takes the server next to no time, so that engines show.
    "downlink.mode": "full",
    "downlink.codec": "fp32",
    "uplink.feedback": "residual",
    "server-average": "none",
}


@dataclass(frozen=True)
class Job:
    """What is run; ``workers`` is of the virtual engine."""

    engine: Literal["virtual", "ray"]
    clients: int
    cohort: int
    rounds: int
    workers: int = 1

    @property
    def processes(self) -> int:
        """How many processes clients run in; Ray has one for each core."""
        return self.workers if self.engine == "virtual" else os.cpu_count() or 1

    @property
    def name(self) -> str:
        """The engine, and its processes."""
        return f"{self.engine} x{self.processes}"


@dataclass(frozen=True)
class Round:
    """Where the time of a round went, in seconds.

    ``total`` by the clock, ``cpu`` of all processors in the whole tree of processes; training
    and encoding are sums over clients.
    """

    total: float
    cpu: float
    training: float
    encoding: float
    server: float

    @classmethod
    def of(cls, record: RoundRecord, cpu: float) -> Round:
        """Read it from a record."""
        return cls(
            total=record.wall_seconds,
            cpu=cpu,
            training=sum(client.train_seconds for client in record.clients),
            encoding=sum(client.encode_seconds for client in record.clients),
            server=record.parts["broadcast"] + record.parts["decode-aggregate"],
        )


class Watch:
    """Keeps where the time of rounds went, and sees to it that no client was missing."""

    def __init__(self, cohort: int) -> None:
        self.rounds: list[Round] = []
        self._cohort = cohort
        self._cpu = 0.0

    def on_start(self, num_rounds: int) -> None:
        """Nothing is to be done."""

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """Nothing is to be done."""

    def on_round(self, record: RoundRecord) -> None:
        """Take a round down; number 0, which trains nobody, only starts the count."""
        before, self._cpu = self._cpu, tree_cpu()
        if record.server_round:
            assert record.participants == self._cohort, record
            self.rounds.append(Round.of(record, self._cpu - before))

    def on_end(self) -> None:
        """Nothing is to be done."""


def tree_cpu() -> float:
    """Return the processor seconds of this process and all that it has started."""
    total = 0.0
    for process in [own := psutil.Process(), *own.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@lru_cache(maxsize=1)
def model(seed: int) -> nn.Module:
    """Return the model, the same one for all clients of a process."""
    return build_model("mlp", INFO, seed)


def data(seed: int, partition_id: int) -> ClientData:
    """Draw a client's examples: one feature of each is raised, by which its class shows."""
    rng = np.random.default_rng(derive_seed(seed, "benchmark-data", partition_id))
    targets = rng.integers(INFO.num_classes, size=EXAMPLES)
    inputs = rng.standard_normal((EXAMPLES, *INFO.input_shape), dtype=np.float32)
    inputs[np.arange(EXAMPLES), targets] += 2.0
    examples = Examples(torch.from_numpy(inputs), torch.from_numpy(targets))
    return ClientData(examples, examples.subset(torch.arange(0)))


def client_fn(context: Context) -> NumPyClient:
    """Build a client."""
    settings = load_settings(context.run_config)
    partition_id = int(context.node_config["partition-id"])
    own = data(settings.seed, partition_id)
    return TorchClient(model(settings.seed), own, settings, partition_id)


def initial(context: Context) -> list[NDArray[Any]]:
    """Return the arrays of the first model."""
    seed = load_settings(context.run_config).seed
    return list(get_arrays(build_model("mlp", INFO, seed)).values())


client_app = numpy_client_app(client_fn, initial)


def run_job(job: Job) -> list[Round]:
    """Run a job in this process and return where the time of its rounds went."""
    update_console_handler(level="ERROR")
    torch.set_num_threads(1)
    config: dict[str, ConfigValue] = {
        **CONFIG,
        "num-server-rounds": job.rounds,
        "round.clients": job.cohort,
        "simulation.num-supernodes": job.clients,
    }
    settings = load_settings(config)
    watch = Watch(job.cohort)
    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, _: Context) -> None:
        start(grid, settings, watch)

    if job.engine == "ray":
        run_ray(server_app, client_app, config, job.clients)
    else:
        devices = build_device_model(settings.simulation, settings.seed)
        run_virtual(server_app, APP, config, job.clients, devices, workers=job.workers)
    return watch.rounds


def start(grid: Grid, settings: Settings, watch: Watch) -> None:
    """Run the server."""
    arrays = pack_arrays(get_arrays(build_model("mlp", INFO, settings.seed)))
    strategy = build_strategy(settings, [watch], None)
    strategy.start(grid, arrays, num_rounds=settings.num_server_rounds, timeout=3600.0)


def run_to_file(path: str, **job: Any) -> None:
    """Run a job and write what its rounds took; the entry of a process of its own."""
    Path(path).write_text(json.dumps([asdict(one) for one in run_job(Job(**job))]))
