"""fl-opt itself, measured in the same way as the others.

Bytes are whole payloads, frame and checksum included. Every codec gets the flat vector as the
peers do, and not the shapes of the arrays in it.
"""

from __future__ import annotations

import numpy as np

from benchmarks.peers.measure import Candidate, Vector, serve
from fl_opt import __version__
from fl_opt.codecs import Encoder, build_codec, decode
from fl_opt.errors import ConfigError

SPECS = {
    "sparse": (
        "topk(0.01) | fp32",
        "topk(0.01) | fp16",
        "topk(0.01) | lloyd_max(3)",
        "topk(0.01) | lloyd_max(2)",
        "topk(0.01) | ternary",
        "topk(0.1) | lloyd_max(3)",
        "topk(0.1) | lloyd_max(2)",
        "topk(0.1) | ternary",
    ),
    "few bits": (
        "sign",
        *(f"eden({bits})" for bits in (1, 2, 3, 4)),
        *(f"lloyd_max({bits})" for bits in (2, 3, 4)),
        *(f"ecsq({rate})" for rate in (0.5, 0.95, 1.5, 2, 2.5, 3, 4)),
        "int4",
    ),
    "8 bit": (
        "int8",
        "uniform(bits=7)",
        "uniform(bits=8, block=4096)",
        "uniform(bits=8, rounding=stochastic)",
        "qsgd(127)",
        "fp8",
        "lloyd_max(8)",
        "eden(6)",
        "ecsq(6)",
        "ecsq(7.6)",
    ),
    "16 bit": ("fp16", "bf16", "uniform(bits=12)", "uniform(bits=14)", "uniform(bits=16)"),
    "exact": ("none",),
}
"""Specs of the kinds that peers have. Those that this version cannot build are left out."""


def candidates() -> list[Candidate]:
    """Return a candidate for each spec that builds."""
    found = []
    for kind, specs in SPECS.items():
        for spec in specs:
            try:
                codec = build_codec(spec)
            except ConfigError:
                continue
            found.append(_candidate(kind, codec))
    return found


def _candidate(kind: str, codec: Encoder) -> Candidate:
    def to_dense(payload: bytes, size: int) -> Vector:
        return np.asarray(decode(payload, size=size).to_dense())

    return Candidate(codec.spec, kind, codec.encode, to_dense)


if __name__ == "__main__":
    serve(__version__, candidates())
