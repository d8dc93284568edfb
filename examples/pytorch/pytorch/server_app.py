"""The server of the example: Flower's own loop, and one line for compression."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from pytorch.task import Net
from strategies import CompressedFedAvg  # (2)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Federate the model and say how good it is."""
    strategy = CompressedFedAvg("topk(0.02) | ternary")  # (2) instead of: FedAvg()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    last = max(result.evaluate_metrics_clientapp)
    accuracy = result.evaluate_metrics_clientapp[last]["accuracy"]
    if path := str(context.run_config["result"]):
        Path(path).write_text(str(accuracy))
