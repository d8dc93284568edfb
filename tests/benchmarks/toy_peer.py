"""An adapter for the tests: a codec that works, and two that do not."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.measure import Candidate, Vector, serve


def encode(vector: Vector) -> bytes:
    return vector.astype(np.float16).tobytes()


def decode(payload: bytes, size: int) -> Vector:
    return np.frombuffer(payload, np.float16, size).astype(np.float32)


def encode_never(vector: Vector) -> bytes:
    raise RuntimeError("needs [another] machine\nand more")


def encode_in_place(vector: Vector) -> bytes:
    vector *= 2
    return encode(vector)


if __name__ == "__main__":
    serve(
        "0.9",
        [
            Candidate("half", "16 bit", encode, decode),
            Candidate("never", "8 bit", encode_never, decode),
            Candidate("in place", "8 bit", encode_in_place, decode),
        ],
    )
