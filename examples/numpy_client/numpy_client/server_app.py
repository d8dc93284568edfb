"""The server of the example."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from numpy_client.task import build
from strategies import CompressedFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Federate the model and say how good it is."""
    strategy = CompressedFedAvg("topk(0.05) | ternary")  # instead of: FedAvg()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(build().state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    last = max(result.evaluate_metrics_clientapp)
    if path := str(context.run_config["result"]):
        Path(path).write_text(str(result.evaluate_metrics_clientapp[last]["accuracy"]))
