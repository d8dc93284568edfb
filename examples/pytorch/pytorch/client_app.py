"""The client of the example: Flower's Message API, and one line for compression."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_opt import compression_mod  # (1)
from pytorch.task import Examples, Net, load_data, test, train

app = ClientApp(mods=[compression_mod()])  # (1) instead of: ClientApp()


@app.train()
def train_model(message: Message, context: Context) -> Message:
    """Train the model received on this client's data."""
    net, (data, _) = Net(), _data(context)
    net.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    loss = train(net, data, float(context.run_config["learning-rate"]))
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord({"train-loss": loss, "num-examples": len(data[1])}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate_model(message: Message, context: Context) -> Message:
    """Evaluate the model received on this client's data."""
    net, (_, data) = Net(), _data(context)
    net.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    metrics = MetricRecord({"accuracy": test(net, data), "num-examples": len(data[1])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _data(context: Context) -> tuple[Examples, Examples]:
    config = context.node_config
    return load_data(int(config["partition-id"]), int(config["num-partitions"]))
