"""Codecs against a memory copy and against the entropy: ``python -m benchmarks.codecs``.

One vector, many codecs. Times are medians of runs that take turns with a copy of the
vector, and are given as multiples of that copy; bytes are lengths of payloads. Encoding
includes error feedback where the codec loses something: adding the residual, encoding, and
subtracting what was sent.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.timing import side_by_side
from fl_opt.codecs import Codec, SparseUpdate, build_codec, decode, rice
from fl_opt.exchange.feedback import add_residual, remaining

SPECS = (
    "topk(0.01) | ternary",
    "topk(0.0025) | ternary",
    "topk(0.001) | ternary",
    "topk(0.01) | fp32",
    "int8",
    "int4",
    "fp16",
    "bf16",
    "none",
)


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_000_000, help="entries of the vector")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a tenth of the entries, 3 repeats")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    size = arguments.size // 10 if arguments.quick else arguments.size
    repeats = 3 if arguments.quick else arguments.repeats
    generator = np.random.default_rng(0)
    vector = generator.laplace(size=size).astype(np.float32)
    console = Console()
    rows = []
    for spec in SPECS:
        with console.status(f"{spec} on {size:,} entries"):
            rows.append(measure(build_codec(spec), vector, repeats))
    console.print(as_table(rows, size))
    if arguments.output:
        arguments.output.write_text(json.dumps({"size": size, "rows": rows}, indent=1))


def measure(codec: Codec, vector: NDArray[np.float32], repeats: int) -> dict[str, Any]:
    """Return the row of a codec."""
    copy = np.empty_like(vector)
    residual = np.zeros_like(vector)
    accumulator = np.zeros_like(vector)
    delta = vector.copy()
    payload = codec.encode(vector)
    update = decode(payload, size=vector.size)

    def encode_with_feedback() -> None:
        add_residual(delta, residual)
        sent = codec.encode(delta)
        remaining(delta, decode(sent, size=delta.size))
        np.copyto(delta, vector)  # the next round's update: the copy is counted as well

    seconds = side_by_side(
        {
            "copy": lambda: np.copyto(copy, vector),
            "encode": lambda: codec.encode(vector),
            "feedback": encode_with_feedback,
            "decode": lambda: decode(payload, size=vector.size).add_to(accumulator, 0.5),
        },
        repeats,
    )
    error = vector.astype(np.float64) - update.to_dense()
    row: dict[str, Any] = {
        "codec": str(codec),
        "bytes": len(payload),
        "bits-per-parameter": 8 * len(payload) / vector.size,
        "compression-ratio": vector.nbytes / len(payload),
        "nmse": float(error @ error) / float(vector.astype(np.float64) @ vector),
        "copy-milliseconds": 1000 * seconds["copy"],
        **{f"{name}-copies": seconds[name] / seconds["copy"] for name in seconds},
    }
    if isinstance(update, SparseUpdate):
        row["rice-over-entropy"] = rice_over_entropy(update)
    return row


def rice_over_entropy(update: SparseUpdate) -> float:
    """Return the size of Rice-coded positions over the entropy of as many random ones."""
    p = update.count / update.size
    entropy = -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) * update.size / 8
    return rice.cost(np.diff(update.positions, prepend=-1) - 1) / entropy


def as_table(rows: list[dict[str, Any]], size: int) -> Table:
    """Lay the rows out for a terminal."""
    milliseconds = np.median([row["copy-milliseconds"] for row in rows])
    table = Table(title=f"{size:,} entries; one copy of them: {milliseconds:.1f} ms")
    for heading in ("codec", "bytes", "bits", "fp32 /", "NMSE", "encode", "+feedback", "decode+add"):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    table.add_column("rice/entropy", justify="right")
    for row in rows:
        ratio = row.get("rice-over-entropy")
        table.add_row(
            row["codec"],
            f"{row['bytes']:,}",
            f"{row['bits-per-parameter']:.4f}",
            f"{row['compression-ratio']:.1f}",
            f"{row['nmse']:.2e}",
            f"{row['encode-copies']:.1f}",
            f"{row['feedback-copies']:.1f}",
            f"{row['decode-copies']:.2f}",
            f"{ratio:.4f}" if ratio else "",
        )
    table.caption = "encode, +feedback and decode+add in multiples of the copy"
    return table


if __name__ == "__main__":
    main()
