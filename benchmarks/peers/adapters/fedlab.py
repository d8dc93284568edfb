"""FedLab: top-k and QSGD compressors.

Bytes are the three tensors that ``PackageProcessor.send_package`` sends: header, slices and
content. A ``Package`` has one dtype, that of its first tensor: positions (int64) and codes
(int32) travel as float32, exact up to 2**24. The project's QSGD sends 8 bytes an entry in
this way, so its codes are also shown as its user could pack them: a byte each, and a bit for
each sign.

The package is installed alone: it asks for torchvision, of which there is none in the registry
that fits a CPU build of torch. ``fedlab.core`` imports it for data sets, so the subpackage
with the messages is imported past it.
"""

# mypy: disable-error-code="import-not-found"
# The package is in its own environment only.

from __future__ import annotations

import importlib
import sys
import types
from importlib.metadata import version
from pathlib import Path

import fedlab
import numpy as np
import torch
from fedlab.contrib.compressor import QSGDCompressor, TopkCompressor

from benchmarks.peers.measure import Candidate, Vector, serve

core = sys.modules["fedlab.core"] = types.ModuleType("fedlab.core")
core.__path__ = [str(Path(fedlab.__file__).parent / "core")]
communicator = importlib.import_module("fedlab.core.communicator")
Package, HEADER_SIZE = communicator.Package, communicator.HEADER_SIZE


def to_bytes(tensors: list[torch.Tensor]) -> bytes:
    """Return what a package of these tensors puts on the wire."""
    package = Package(content=tensors)
    slices = np.array(package.slices, np.int32)
    parts = package.header.numpy(), slices, package.content.numpy()
    return b"".join(part.tobytes() for part in parts)


def to_tensors(payload: bytes) -> list[torch.Tensor]:
    """Read the tensors, all of them float32, from the bytes of a package."""
    header = torch.from_numpy(np.frombuffer(payload, np.int32, HEADER_SIZE).copy())
    count = Package.parse_header(header)[2]
    slices = np.frombuffer(payload, np.int32, count, offset=4 * HEADER_SIZE).tolist()
    content = np.frombuffer(payload, np.float32, offset=4 * (HEADER_SIZE + count))
    return list(Package.parse_content(slices, torch.from_numpy(content.copy())))


def topk(density: float) -> Candidate:
    """Values and positions in a package."""
    compressor = TopkCompressor(density)

    def encode(vector: Vector) -> bytes:
        values, positions = compressor.compress(torch.from_numpy(vector))
        return to_bytes([values, positions])

    def decode(payload: bytes, size: int) -> Vector:
        values, positions = to_tensors(payload)
        return np.asarray(compressor.decompress(values, positions.long(), (size,)).numpy())

    return Candidate(f"topk({density:.0%})", "sparse", encode, decode)


def qsgd(bits: int) -> Candidate:
    """Norm, signs and codes in a package."""
    compressor = QSGDCompressor(bits)

    def encode(vector: Vector) -> bytes:
        return to_bytes(compressor.compress(torch.from_numpy(vector)))

    def decode(payload: bytes, _size: int) -> Vector:
        return np.asarray(compressor.decompress(to_tensors(payload)).numpy())

    return Candidate(f"qsgd({bits})", "8 bit", encode, decode)


def qsgd_packed(bits: int) -> Candidate:
    """Norm, signs and codes packed by the caller; codes reach 2**bits."""
    compressor = QSGDCompressor(bits)

    def encode(vector: Vector) -> bytes:
        norm, signs, codes = compressor.compress(torch.from_numpy(vector))
        packed = np.packbits(signs.numpy())
        return bytes(
            norm.numpy().tobytes() + packed.tobytes() + codes.to(torch.uint8).numpy().tobytes()
        )

    def decode(payload: bytes, size: int) -> Vector:
        norm = torch.from_numpy(np.frombuffer(payload, np.float32, 1).copy())
        packed = np.frombuffer(payload, np.uint8, -(-size // 8), offset=4)
        signs = torch.from_numpy(np.unpackbits(packed, count=size))
        codes = torch.from_numpy(
            np.frombuffer(payload, np.uint8, size, len(payload) - size).copy()
        )
        return np.asarray(compressor.decompress([norm, signs, codes]).numpy())

    return Candidate(f"qsgd({bits}), packed", "8 bit", encode, decode)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    serve(version("fedlab"), [topk(0.01), qsgd(7), qsgd_packed(7)])
