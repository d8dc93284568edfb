"""The ClientApp that ``pyproject.toml`` names: the reference torch client, compressed."""

from __future__ import annotations

from typing import Any

from flwr.app import Context
from flwr.client import NumPyClient
from numpy.typing import NDArray

from fl_opt.client.numpy_client import numpy_client_app
from fl_opt.client.torch_client import build_torch_client, first_arrays
from fl_opt.config import load_settings


def client_fn(context: Context) -> NumPyClient:
    """Build the client of the partition that the node's configuration names."""
    return build_torch_client(load_settings(context.run_config), *_place(context))


def initial(context: Context) -> list[NDArray[Any]]:
    """Build the arrays of the model that the server begins with, from the run's seed."""
    return first_arrays(load_settings(context.run_config), _place(context)[1])


def _place(context: Context) -> tuple[int, int]:
    node = context.node_config
    return int(node["partition-id"]), int(node["num-partitions"])


app = numpy_client_app(client_fn, initial)
