"""The client of the example: arrays in, arrays out."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_opt import compression_mod
from scikit_learn.task import Examples, Model, load, test, train

app = ClientApp(mods=[compression_mod()])  # instead of: ClientApp()


@app.train()
def train_model(message: Message, context: Context) -> Message:
    """Train the model received on this client's data."""
    data, _ = _data(context)
    model = train(_model(message), data, float(context.run_config["learning-rate"]))
    arrays = ArrayRecord({name: Array(array) for name, array in model.items()})
    metrics = MetricRecord({"num-examples": len(data[1])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_model(message: Message, context: Context) -> Message:
    """Evaluate the model received on this client's data."""
    _, data = _data(context)
    accuracy = test(_model(message), data)
    metrics = MetricRecord({"accuracy": accuracy, "num-examples": len(data[1])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _model(message: Message) -> Model:
    arrays = message.content.array_records["arrays"]
    return {name: array.numpy() for name, array in arrays.items()}


def _data(context: Context) -> tuple[Examples, Examples]:
    config = context.node_config
    return load(int(config["partition-id"]), int(config["num-partitions"]))
