"""hivemind: the compressions of its averager.

Bytes are the serialized ``runtime_pb2.Tensor`` message that ``serialize_torch_tensor`` gives,
which is what peers exchange. numpy stays below 2.4: ``extract`` makes an ``int`` of an array
of one entry, which later versions refuse. bitsandbytes is for the blockwise type.
"""

# mypy: disable-error-code="import-not-found"
# The package is in its own environment only.

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import torch
from hivemind.compression import deserialize_torch_tensor, serialize_torch_tensor
from hivemind.proto.runtime_pb2 import CompressionType, Tensor

from benchmarks.peers.measure import Candidate, Vector, serve

KINDS = {
    "UNIFORM_8BIT": "8 bit",
    "QUANTILE_8BIT": "8 bit",
    "BLOCKWISE_8BIT": "8 bit",
    "FLOAT16": "16 bit",
    "MEANSTD_16BIT": "16 bit",
}


def candidate(name: str, kind: str) -> Candidate:
    """Return one of the compression types."""
    number = CompressionType.Value(name)

    def encode(vector: Vector) -> bytes:
        tensor = torch.from_numpy(vector)
        return bytes(serialize_torch_tensor(tensor, number).SerializeToString())

    def decode(payload: bytes, _size: int) -> Vector:
        tensor = deserialize_torch_tensor(Tensor.FromString(payload))
        return np.asarray(tensor.numpy(), np.float32)

    return Candidate(name.lower(), kind, encode, decode)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(version("hivemind"), [candidate(name, kind) for name, kind in KINDS.items()])
