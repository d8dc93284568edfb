"""Small apps for the tests of the engines."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp


def payload(data: bytes) -> Array:
    """An Array that carries bytes as they are."""
    return Array("uint8", (len(data),), "fl_opt/1", data)


def question(
    node_id: int, *, size: int = 1000, kind: str = "train", ttl: float | None = None
) -> Message:
    """A message with a payload of ``size`` bytes."""
    content = RecordDict(
        {
            "arrays": ArrayRecord({"payload": payload(bytes(size))}),
            "config": ConfigRecord({"server-round": 1, "list": [1, 2]}),
        }
    )
    return Message(content, node_id, kind, ttl=ttl)


def answer(message: Message, *, size: int = 100, samples: float | None = 50.0) -> Message:
    """A reply with a payload of ``size`` bytes."""
    metrics = MetricRecord({"num-examples": 10})
    if samples is not None:
        metrics["num-samples"] = samples
    content = RecordDict(
        {"arrays": ArrayRecord({"payload": payload(bytes(size))}), "metrics": metrics}
    )
    return Message(content, reply_to=message)


def config_of(content: RecordDict) -> ConfigRecord:
    """The record ``config``."""
    return content.config_records["config"]


def metrics_of(content: RecordDict) -> MetricRecord:
    """The record ``metrics``."""
    return content.metric_records["metrics"]


def payload_of(content: RecordDict) -> Array:
    """The only Array."""
    return content.array_records["arrays"]["payload"]


def client_app(function: Callable[[Message, Context], Message]) -> ClientApp:
    """A ClientApp that answers training and evaluation with a function."""
    app = ClientApp()
    app.train()(function)
    app.evaluate()(function)
    return app


def server_app(function: Callable[[Grid, Context], None]) -> ServerApp:
    """A ServerApp that runs a function."""
    app = ServerApp()
    app.main()(function)
    return app
