"""Flower's own arrays: dense, uncompressed.

Bytes are the data of a ``flwr.app.Array``, which is a ``.npy`` file of the array.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from flwr.app import Array

from benchmarks.peers.measure import Candidate, Vector, serve


def encode(vector: Vector) -> bytes:
    """Put the vector into an Array."""
    return Array(vector).data


def decode(payload: bytes, size: int) -> Vector:
    """Take the vector out of an Array."""
    array = Array(dtype="float32", shape=(size,), stype="numpy.ndarray", data=payload)
    return np.asarray(array.numpy(), np.float32)


if __name__ == "__main__":
    serve(version("flwr"), [Candidate("Array", "exact", encode, decode)])
