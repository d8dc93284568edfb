"""Clients: compression around a NumPyClient or a Message-based ClientApp."""

from fl_opt.client.mod import compression_mod
from fl_opt.client.numpy_client import CompressedNumPyClient, numpy_client_app

__all__ = ["CompressedNumPyClient", "compression_mod", "numpy_client_app"]
