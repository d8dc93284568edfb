"""A server that writes down each round's model and whose updates are in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from chaos_app.softmax import accuracy, first_model, let_the_clock_jump, write
from fl_opt.checkpoint import Checkpoints
from fl_opt.exchange import records
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.params import ParamSpec
from fl_opt.profiling.rounds import RoundRecord
from strategies import CompressedFedAvg

app = ServerApp()


class Auditor:
    """Writes a record of each round: an observer, and what evaluates the model."""

    def __init__(self, folder: Path, run_id: int) -> None:
        self._folder, self._run_id = folder, run_id
        self._spec = ParamSpec.of(first_model())
        self._model: NDArray[np.float32] | None = None
        self._accuracy = 0.0

    def evaluate(self, _server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Keep the model, and return its accuracy."""
        named = records.unpack_arrays(arrays)
        self._model = self._spec.flatten(named)
        self._accuracy = accuracy(named)
        return MetricRecord({"accuracy": self._accuracy})

    def on_start(self, num_rounds: int) -> None:
        """Nothing to write yet."""

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """What counts is what is in the model."""

    def on_round(self, record: RoundRecord) -> None:
        """Write the round down."""
        write(
            self._folder / "server",
            f"{record.server_round:04d}",
            round=record.server_round,
            run_id=str(self._run_id),
            model=self._model,
            used=np.array([c.node_id for c in record.clients if c.staleness], np.uint64),
            failures=record.failures,
            accuracy=self._accuracy,
        )

    def on_end(self) -> None:
        """All is written."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Federate the model, from the last checkpoint where there is one."""
    config = context.run_config
    folder = Path(str(config["folder"]))
    let_the_clock_jump(folder)
    auditor = Auditor(folder, context.run_id)
    clients = int(config["num-clients"])
    with Checkpoints(folder / "checkpoint") as checkpoints:
        strategy = CompressedFedAvg(
            "topk(0.1) | ternary",
            feedback="residual",
            late_replies="refuse",
            downlink=DownlinkOptions("auto", "ecsq(2.0)"),
            min_train_nodes=clients,
            min_available_nodes=clients,
            fraction_evaluate=0.0,
            observers=[auditor],
            checkpoints=checkpoints,
        )
        strategy.start(
            grid,
            records.pack_arrays(first_model()),
            num_rounds=int(config["num-server-rounds"]),
            timeout=float(config["timeout"]),
            evaluate_fn=auditor.evaluate,
            resume=bool(config["resume"]),
        )
