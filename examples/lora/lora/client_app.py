"""The client of the example: it is sent, and sends, adapters and head alone."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_opt import compression_mod
from lora.task import Examples, Net, load, test, train

app = ClientApp(mods=[compression_mod()])  # instead of: ClientApp()


@app.train()
def train_model(message: Message, context: Context) -> Message:
    """Train the adapters received on this client's data."""
    net, (data, _) = _net(message), _data(context)
    train(net, data, float(context.run_config["learning-rate"]))
    arrays = ArrayRecord(net.trainable_state())
    metrics = MetricRecord({"num-examples": len(data[1])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_model(message: Message, context: Context) -> Message:
    """Evaluate the adapters received on this client's data."""
    net, (_, data) = _net(message), _data(context)
    metrics = MetricRecord({"accuracy": test(net, data), "num-examples": len(data[1])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _net(message: Message) -> Net:
    net = Net()
    received = message.content.array_records["arrays"].to_torch_state_dict()
    net.load_state_dict(received, strict=False)  # what is frozen does not travel
    return net


def _data(context: Context) -> tuple[Examples, Examples]:
    config = context.node_config
    return load(int(config["partition-id"]), int(config["num-partitions"]))
