"""What is fuzzed: for each reader, how bytes are given to it and which error it may raise."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from fl_opt.codecs import build_codec, decode
from fl_opt.codecs.inspect import inspect_payload
from fl_opt.errors import ConfigError, FlOptError, PayloadError
from fl_opt.reporting import load_run
from fl_opt.run_config import parse_run_config

SIZE: Final = 300
"""Parameters of the model that payloads are decoded for."""
SPECS: Final = (
    "none",
    "fp16",
    "int8",
    "uniform(5, 16)",
    "topk(0.1) | fp32 | raw",
    "topk(0.1) | ternary",
    "topk(0.1) | ternary | rice",
    "randk(0.1) | uniform(bits=8)",
    "ecsq(0.5)",
    "eden(1)",
    "sign",
)


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes
    ----------
    read : callable
        Given bytes; whatever else than ``refuses`` it raises is a finding.
    seeds : callable
        Returns what the corpus starts from.
    refuses : type
        How wrong bytes may be refused.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    refuses: type[Exception]


def read_payload(data: bytes) -> None:
    """Decode a payload under a checksum that fits; look at what is valid as `inspect` does."""
    sealed = _sealed(data)
    dense = decode(sealed, size=SIZE).to_dense()
    assert dense.shape == (SIZE,)
    assert np.isfinite(dense).all()
    inspect_payload(sealed)


def read_sections(data: bytes) -> None:
    """Look at a payload as `inspect` does, which is not told of what model it is."""
    inspect_payload(_sealed(data))


def _sealed(data: bytes) -> bytes:
    """Return a payload with the checksum that its bytes ask for."""
    return data[:4] + zlib.crc32(data[8:]).to_bytes(4, "little") + data[8:]


def payloads() -> Iterable[bytes]:
    """Return a payload of each kind."""
    vector = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)
    return [build_codec(spec).encode(vector, seed=3) for spec in SPECS]


def read_record(data: bytes) -> None:
    """Read a run whose file of rounds holds these bytes."""
    folder = _record()
    (folder / "rounds.jsonl").write_bytes(data)
    load_run(folder)


_SCRATCH: Final = tempfile.TemporaryDirectory(prefix="fuzz-")
"""Removed when the process ends; libFuzzer's are given a folder that their parent removes."""


@cache
def _record() -> Path:
    """Return a folder that holds the summary of a real run."""
    from flwr.supercore.logger import update_console_handler

    from run_simulation import run

    update_console_handler(level="ERROR")
    folder = Path(_SCRATCH.name) / "run"
    run({"num-server-rounds": 1, "simulation.num-supernodes": 2}, output=folder, quiet=True)
    return folder


def records() -> Iterable[bytes]:
    """Return the rounds of a real run."""
    return [(_record() / "rounds.jsonl").read_bytes()]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


TARGETS: Final = {
    "decode": Target(read_payload, payloads, PayloadError),
    "inspect": Target(read_sections, payloads, PayloadError),
    "spec": Target(
        lambda data: build_codec(_text(data)), lambda: [s.encode() for s in SPECS], ConfigError
    ),
    "run-config": Target(
        lambda data: parse_run_config([_text(data)]),
        lambda: [b"dataset='digits' num-server-rounds=3", b"uplink.codec='topk(0.1)'"],
        FlOptError,
    ),
    "record": Target(read_record, records, FlOptError),
}
