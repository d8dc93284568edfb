"""What every adapter does: encode vectors from files, decode them, report rows as JSON lines.

Runs in the peers' environments: only the standard library and numpy are used. A codec that
raises gives a row that says so; the others go on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

BUDGET: Final = 8.0
"""Seconds that the repeats of one codec on one vector may take, if there are at least two."""
ONCE: Final = 20.0
"""A codec whose first run takes longer is not run again."""


@dataclass(frozen=True)
class Candidate:
    """A codec of a peer.

    Parameters
    ----------
    name : str
    kind : str
        The group it is shown in, one of :data:`benchmarks.peers.report.KINDS`.
    encode : callable
        From a float32 vector of shape ``(size,)``, which it must not change, to bytes.
    decode : callable
        From bytes and ``size`` back to a float32 vector of shape ``(size,)``.
    """

    name: str
    kind: str
    encode: Callable[[Vector], bytes]
    decode: Callable[[bytes, int], Vector]


def serve(version: str, candidates: Sequence[Candidate]) -> None:
    """Run an adapter from the command line.

    Parameters
    ----------
    version : str
        Of the package that is measured.
    candidates : sequence of Candidate
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("vectors", nargs="+", type=Path, help=".npy files")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, added to")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    arguments = parser.parse_args()
    with arguments.output.open("a") as file:

        def report(row: dict[str, Any]) -> None:
            print(json.dumps(row), file=file, flush=True)  # what was measured outlives a crash

        report({"version": version})
        for path in arguments.vectors:
            vector = np.load(path, allow_pickle=False)
            for candidate in candidates:
                row = {"vector": path.stem, "codec": candidate.name, "kind": candidate.kind}
                try:
                    if arguments.memory:
                        row |= memory(candidate, vector)
                    else:
                        row |= measure(candidate, vector, arguments.repeats)
                except Exception as error:  # whatever a peer raises is its result
                    row["failed"] = one_line(error)
                report(row)


def measure(codec: Candidate, vector: Vector, repeats: int) -> dict[str, Any]:
    """Return size, distortion and times of a codec, and of a copy of the vector.

    All three take turns. The first turn warms up and counts only where it is the only one.
    Times are medians; the fastest are given too, as what other programs on the machine
    took from a run is in a median but not in them.
    """
    original, copy = vector.copy(), np.empty_like(vector)
    samples: list[tuple[float, float, float]] = []
    begin = time.perf_counter()
    while True:
        ticks = [time.perf_counter()]
        np.copyto(copy, vector)
        ticks.append(time.perf_counter())
        payload = codec.encode(vector)
        ticks.append(time.perf_counter())
        decoded = codec.decode(payload, vector.size)
        ticks.append(time.perf_counter())
        samples.append((ticks[1] - ticks[0], ticks[2] - ticks[1], ticks[3] - ticks[2]))
        spent = ticks[3] - begin
        limit = ONCE if len(samples) == 1 else BUDGET
        if len(samples) > repeats or spent > limit:
            break
    if not np.array_equal(vector, original):
        raise ValueError("encoding changes the vector")
    if len(samples) > 1:
        del samples[0]
    row = {"bytes": len(payload), "nmse": nmse(vector, decoded), "repeats": len(samples)}
    for name, times in zip(
        ("copy", "encode", "decode"), zip(*samples, strict=True), strict=True
    ):
        row |= {f"{name}-seconds": statistics.median(times), f"{name}-fastest": min(times)}
    return row


def nmse(vector: Vector, decoded: Vector) -> float:
    """Return the squared error over the squared norm.

    Raises
    ------
    ValueError
        If what was decoded is not a finite float32 vector of the same shape.
    """
    if decoded.shape != vector.shape or decoded.dtype != np.float32:
        raise ValueError(f"decoded to {decoded.dtype} of shape {decoded.shape}")
    error = vector.astype(np.float64) - decoded
    result = float(error @ error) / float(vector.astype(np.float64) @ vector)
    if not np.isfinite(result):
        raise ValueError("decoded to NaN or infinity")
    return result


def memory(codec: Candidate, vector: Vector) -> dict[str, Any]:
    """Return how far the process grows in an encode and in a decode, in bytes.

    Linux only: the high-water mark of the resident set is reset before each call. Freed memory
    has to go back to the system at once for this, see
    :data:`benchmarks.peers.environments.GIVE_BACK`.
    """
    payload = codec.encode(vector)  # imports and caches are no part of the price
    codec.decode(payload, vector.size)

    def growth(call: Callable[[], object]) -> int:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)

    return {
        "encode-memory": growth(lambda: codec.encode(vector)),
        "decode-memory": growth(lambda: codec.decode(payload, vector.size)),
    }


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def one_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
