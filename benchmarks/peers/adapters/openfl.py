"""OpenFL: its compression pipelines.

Bytes are the serialized ``NamedTensor`` message with the pipeline's data and metadata, as a
collaborator sends for each tensor of a model; here the model is one tensor. Its density
and numbers of clusters and bits are given in the names; 10% and 6 clusters are its defaults.
"""

# mypy: disable-error-code="import-not-found"
# The package is in its own environment only.

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import torch
from openfl.pipelines import EdenPipeline, KCPipeline, SKCPipeline, STCPipeline, TensorCodec
from openfl.protocols.base_pb2 import NamedTensor
from openfl.protocols.utils import construct_named_tensor
from openfl.utilities import TensorKey

from benchmarks.peers.measure import Candidate, Vector, serve

KEY = TensorKey("update", "collaborator", 0, False, ("trained", "delta"))


def candidate(name: str, kind: str, codec: TensorCodec) -> Candidate:
    """Return a pipeline with the message around it."""

    def encode(vector: Vector) -> bytes:
        key, data, metadata = codec.compress(KEY, vector)
        message = construct_named_tensor(key, data, metadata, lossless=False)
        return bytes(message.SerializeToString())

    def decode(payload: bytes, _size: int) -> Vector:
        message = NamedTensor.FromString(payload)
        metadata = [
            {"int_to_float": part.int_to_float, "int_list": part.int_list}
            for part in message.transformer_metadata
        ]
        key = TensorKey("update", "collaborator", 0, False, tuple(message.tags))
        _, vector = codec.decompress(key, message.data_bytes, metadata)
        return np.asarray(vector, np.float32)

    return Candidate(name, kind, encode, decode)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(
        version("openfl"),
        [
            candidate("STC(1%)", "sparse", TensorCodec(STCPipeline(0.01))),
            candidate("STC(10%)", "sparse", TensorCodec(STCPipeline(0.1))),
            candidate("SKC(1%, 6)", "sparse", TensorCodec(SKCPipeline(0.01, 6))),
            candidate("SKC(10%, 6)", "sparse", TensorCodec(SKCPipeline(0.1, 6))),
            candidate("KC(6)", "few bits", TensorCodec(KCPipeline(n_clusters=6))),
            candidate("EDEN(1)", "few bits", TensorCodec(EdenPipeline(1))),
            candidate("EDEN(2)", "few bits", TensorCodec(EdenPipeline(2))),
            candidate("EDEN(4)", "few bits", TensorCodec(EdenPipeline(4))),
            candidate("EDEN(8)", "8 bit", TensorCodec(EdenPipeline(8))),
        ],
    )
