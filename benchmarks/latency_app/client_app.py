"""Clients that do nothing, and say when they did it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

Arrays = list[NDArray[np.float32]]
Scalars = dict[str, bool | bytes | float | int | str]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the model as it came, or the update that is none."""
    if context.run_config["strategy"] == "compressed":
        return _compressed(message, context)
    content = {"arrays": message.content["arrays"], "metrics": MetricRecord({**_moments()})}
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, _: Context) -> Message:
    """Return a metric."""
    return Message(
        RecordDict({"metrics": MetricRecord({**_moments(), "loss": 1.0})}), reply_to=message
    )


def _compressed(message: Message, context: Context) -> Message:
    from fl_opt.client import numpy_client_app  # stock clients do without

    return numpy_client_app(lambda _: _Idle())(message, context)


class _Idle(NumPyClient):
    def fit(self, parameters: Arrays, config: Scalars) -> tuple[Arrays, int, Scalars]:
        moved = [array + np.float32(1e-3) for array in parameters]
        return moved, 1, {**_moments()}

    def evaluate(self, parameters: Arrays, config: Scalars) -> tuple[float, int, Scalars]:
        return 1.0, 1, {}


def _moments() -> dict[str, float]:
    """When this process was started and when it came to the app, in seconds of the epoch."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100.0
    now = time.time()
    return {"num-examples": 1, "started": now - age, "entered": now}
