"""Peak memory of encoding: ``python -m benchmarks.codec_memory``.

What numpy and Python allocate while a vector is encoded, beyond the vector itself, in multiples
of it; the payload is part of that.
"""

from __future__ import annotations

import argparse
import tracemalloc

import numpy as np
from rich.console import Console
from rich.table import Table

from fl_opt.codecs import build_codec

SPECS = ("topk(0.01) | ternary", "ecsq(1)", "eden(1)", "int8", "int4", "fp16", "bf16", "none")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a million entries only")
    arguments = parser.parse_args()
    sizes = [1_000_000] if arguments.quick else [10_000_000, 100_000_000]
    table = Table("codec", *(f"{size:,}" for size in sizes), title="peak extra memory / vector")
    rows: dict[str, list[str]] = {spec: [] for spec in SPECS}
    console = Console()
    for size in sizes:
        vector = np.random.default_rng(0).standard_normal(size, np.float32)
        for spec in SPECS:
            with console.status(f"{spec} on {size:,} entries"):
                rows[spec].append(f"{peak_of(spec, vector) / vector.nbytes:.2f}")
    for spec, cells in rows.items():
        table.add_row(spec, *cells)
    console.print(table)


def peak_of(spec: str, vector: np.ndarray[tuple[int], np.dtype[np.float32]]) -> int:
    """Return the bytes allocated at most during one encode."""
    codec = build_codec(spec)
    tracemalloc.start()
    try:
        codec.encode(vector, seed=1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
