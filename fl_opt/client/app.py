"""The ClientApp that ``pyproject.toml`` names: the reference torch client, compressed."""

from __future__ import annotations

from flwr.app import Context
from flwr.client import NumPyClient

from fl_opt.client.numpy_client import numpy_client_app
from fl_opt.client.torch_client import build_torch_client
from fl_opt.config import load_settings


def client_fn(context: Context) -> NumPyClient:
    """Build the client of the partition that the node's configuration names."""
    return build_torch_client(
        load_settings(context.run_config),
        partition_id=int(context.node_config["partition-id"]),
        num_partitions=int(context.node_config["num-partitions"]),
    )


app = numpy_client_app(client_fn)
