"""What people write themselves, with torch, numpy and zstd.

Bytes are the joined buffers without any header: positions as int32 and values as float32 or
float16, left as they are or through zstd at its default level.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
import zstandard

from benchmarks.peers.measure import Candidate, Vector, serve

Bytes = Callable[[bytes], bytes]


def topk(name: str, density: float, compress: Bytes, decompress: Bytes) -> Candidate:
    """``torch.topk`` of the magnitudes: sorted int32 positions, then float32 values."""

    def encode(vector: Vector) -> bytes:
        tensor = torch.from_numpy(vector)
        count = max(1, round(density * tensor.numel()))
        positions = torch.topk(tensor.abs(), count, sorted=False).indices.sort().values
        values = tensor[positions].numpy().tobytes()
        return compress(positions.to(torch.int32).numpy().tobytes() + values)

    def decode(payload: bytes, size: int) -> Vector:
        data = decompress(payload)
        half = len(data) // 2
        dense = np.zeros(size, np.float32)
        dense[np.frombuffer(data[:half], np.int32)] = np.frombuffer(data[half:], np.float32)
        return dense

    return Candidate(name, "sparse", encode, decode)


def cast(
    name: str, kind: str, dtype: type[np.floating], compress: Bytes, decompress: Bytes
) -> Candidate:
    """``astype`` and ``tobytes``."""

    def encode(vector: Vector) -> bytes:
        return compress(vector.astype(dtype).tobytes())

    def decode(payload: bytes, _size: int) -> Vector:
        return np.frombuffer(decompress(payload), dtype).astype(np.float32)

    return Candidate(name, kind, encode, decode)


def as_it_is(data: bytes) -> bytes:
    """Compress nothing."""
    return data


def zstd(data: bytes) -> bytes:
    """Compress at the default level."""
    return zstandard.compress(data)


def unzstd(data: bytes) -> bytes:
    """Undo :func:`zstd`."""
    return zstandard.decompress(data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(
        version("torch"),
        [
            topk("torch.topk(1%)", 0.01, as_it_is, as_it_is),
            topk("torch.topk(1%) + zstd", 0.01, zstd, unzstd),
            cast("numpy fp16", "16 bit", np.float16, as_it_is, as_it_is),
            cast("numpy fp16 + zstd", "16 bit", np.float16, zstd, unzstd),
            cast("fp32 + zstd", "exact", np.float32, zstd, unzstd),
        ],
    )
