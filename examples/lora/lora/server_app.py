"""The server of the example: a codec for each kind of array, by its name."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from lora.task import Net
from strategies import CompressedFedAvg

CODEC = "topk(0.1) | ternary; *lora_B: uniform(bits=4); *bias: fp16"
"""Adapters A as signs of their largest tenth, B in four bits, and the head's bias in half."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Federate the adapters and say how good they are."""
    strategy = CompressedFedAvg(CODEC)  # instead of: FedAvg()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().trainable_state()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    last = max(result.evaluate_metrics_clientapp)
    if path := str(context.run_config["result"]):
        Path(path).write_text(str(result.evaluate_metrics_clientapp[last]["accuracy"]))
