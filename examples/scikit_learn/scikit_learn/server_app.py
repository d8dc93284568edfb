"""The server of the example."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from scikit_learn.task import build
from strategies import CompressedFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Federate the model and say how good it is."""
    strategy = CompressedFedAvg("topk(0.1) | ternary")  # instead of: FedAvg()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in build().items()}),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    last = max(result.evaluate_metrics_clientapp)
    if path := str(context.run_config["result"]):
        Path(path).write_text(str(result.evaluate_metrics_clientapp[last]["accuracy"]))
