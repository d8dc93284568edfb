"""Every codec on every kind of vector: ``python -m benchmarks.codecs``.

Rate and distortion on Gaussian, Laplace and Student-t vectors and on updates recorded from
real training (``python -m benchmarks.record_updates`` makes them), and speed on one large
vector. Bytes are lengths of payloads, everything included. Times are medians of runs that take
turns with a copy of the same vector, as multiples of that copy. Encoding ``+feedback`` adds
the residual, encodes, and subtracts what was sent.
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

from benchmarks.codecs_page import write_page
from benchmarks.vectors import Source, recorded, synthetic
from fl_opt.codecs import Encoder, SparseUpdate, build_codec, decode
from fl_opt.exchange.feedback import Residual
from fl_opt.profiling.codec_costs import fidelity
from fl_opt.profiling.timing import side_by_side

SPECS = (
    "topk(0.01) | ternary",
    "topk(0.0025) | ternary",
    "topk(0.001) | ternary",
    "topk(0.01) | ternary | rice",
    "topk(0.05) | ternary",
    "topk(0.01, scope=tensor) | ternary",
    "topk(0.01) | uniform(bits=4)",
    "topk(0.01) | lloyd_max(2)",
    "topk(0.01) | fp32",
    "block_topk(0.01, block=1024) | ternary",
    "randk(0.01) | fp16",
    "powersgd(2)",
    "ecsq(0.25)",
    "ecsq(0.5)",
    "ecsq(1)",
    "ecsq(2)",
    "eden(0.25)",
    "eden(1)",
    "eden(2)",
    "eden(3)",
    "sign",
    "terngrad",
    "qsgd(4)",
    "lloyd_max(3)",
    "int4",
    "int8",
    "fp8",
    "fp16",
    "bf16",
    "none",
)
TIMED = (
    "topk(0.01) | ternary",
    "topk(0.01) | ternary | rice",
    "topk(0.001) | ternary",
    "ecsq(1)",
    "eden(1)",
    "sign",
    "int8",
    "int4",
    "fp16",
    "bf16",
    "none",
)


def main() -> None:
    """Measure, print tables, and write JSON and a plot where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate-size", type=int, default=1_000_000, help="entries for rates")
    parser.add_argument("--speed-size", type=int, default=10_000_000, help="entries for times")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the entries, 3 repeats"
    )
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    parser.add_argument("--page", type=Path, help="write the tables as Markdown")
    parser.add_argument("--plot", type=Path, help="write rate and distortion as PNG")
    arguments = parser.parse_args()
    shrink = 10 if arguments.quick else 1
    console = Console()

    rates = []
    for source in synthetic(arguments.rate_size // shrink) + recorded():
        with console.status(source.name):
            rows = [rate_of(spec, source) for spec in SPECS]
        console.print(rate_table(source, rows))
        rates += rows
    vector = synthetic(arguments.speed_size // shrink)[1].vector
    speeds = []
    for spec in TIMED:
        with console.status(f"{spec} on {vector.size:,} entries"):
            repeats = 3 if arguments.quick else arguments.repeats
            speeds.append(speed_of(build_codec(spec), vector, repeats))
    console.print(speed_table(speeds, vector.size))
    if arguments.output:
        arguments.output.write_text(json.dumps({"rates": rates, "speeds": speeds}, indent=1))
    if arguments.page:
        write_page(rates, speeds, arguments.page)
    if arguments.plot:
        plot(rates, arguments.plot)


def rate_of(spec: str, source: Source) -> dict[str, Any]:
    """Return rate and distortion of a codec on a vector."""
    found = fidelity(build_codec(spec), source.vector, seed=1, layout=source.layout)
    update, bits = found.update, found.bits_per_parameter
    row = {
        "source": source.name,
        "codec": spec,
        "bytes": found.num_bytes,
        "bits-per-parameter": bits,
        "nmse": found.nmse,
        "cosine": found.cosine,
        "of-entropy": None,
        "over-gaussian-bound": None,
    }
    if isinstance(update, SparseUpdate) and "ternary" in spec:
        row["of-entropy"] = 8 * found.num_bytes / _entropy_bits(update.count, update.size)
    elif source.name == "Gaussian" and bits < 16:
        row["over-gaussian-bound"] = row["nmse"] / 2.0 ** (-2.0 * bits)
    return row


def _entropy_bits(count: int, size: int) -> float:
    """Return the bits of ``count`` independent positions of ``size``, and a sign for each."""
    p = count / size
    return -size * (p * math.log2(p) + (1 - p) * math.log2(1 - p)) + count


def speed_of(codec: Encoder, vector: NDArray[np.float32], repeats: int) -> dict[str, Any]:
    """Return the times of a codec, in copies of the vector."""
    copy = np.empty_like(vector)
    feedback = Residual()
    state = {"residual": np.zeros_like(vector)}
    accumulator = np.zeros_like(vector)
    delta = vector.copy()
    payload = codec.encode(vector)

    def encode_with_feedback() -> None:
        carried, moved = feedback.before(delta, state)
        sent = codec.encode(carried)
        feedback.after(carried, decode(sent, size=delta.size), moved)
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
    return {
        "codec": str(codec),
        "copy-milliseconds": 1000 * seconds["copy"],
        **{f"{name}-copies": seconds[name] / seconds["copy"] for name in seconds},
    }


def rate_table(source: Source, rows: list[dict[str, Any]]) -> Table:
    """Lay rates and distortions out for a terminal."""
    table = Table(title=f"{source.name}: {source.vector.size:,} entries")
    table.add_column("codec")
    for heading in ("bytes", "bits", "fp32 /", "NMSE", "cosine", "of entropy", "of D(R)"):
        table.add_column(heading, justify="right")
    for row in rows:
        entropy, bound = row["of-entropy"], row["over-gaussian-bound"]
        table.add_row(
            row["codec"],
            f"{row['bytes']:,}",
            f"{row['bits-per-parameter']:.4f}",
            f"{32 / row['bits-per-parameter']:.1f}",
            f"{row['nmse']:.3g}",
            f"{row['cosine']:.4f}",
            f"{entropy:.4f}" if entropy else "",
            f"{bound:.2f}" if bound else "",
        )
    table.caption = (
        "of entropy: bytes over those of independent positions and signs; "
        "of D(R): NMSE over a Gaussian's least at this rate, 2^(-2 bits)"
    )
    return table


def speed_table(rows: list[dict[str, Any]], size: int) -> Table:
    """Lay times out for a terminal."""
    milliseconds = float(np.median([row["copy-milliseconds"] for row in rows]))
    table = Table(title=f"{size:,} entries; one copy of them: {milliseconds:.1f} ms")
    table.add_column("codec")
    for heading in ("encode", "+feedback", "decode+add", "encode GB/s"):
        table.add_column(heading, justify="right")
    for row in rows:
        seconds = row["encode-copies"] * row["copy-milliseconds"] / 1000
        table.add_row(
            row["codec"],
            f"{row['encode-copies']:.1f}",
            f"{row['feedback-copies']:.1f}",
            f"{row['decode-copies']:.2f}",
            f"{4e-9 * size / seconds:.2f}",
        )
    table.caption = "encode, +feedback and decode+add in multiples of the copy"
    return table


def plot(rates: list[dict[str, Any]], path: Path) -> None:
    """Draw distortion over rate, one panel a source."""
    from matplotlib import pyplot

    sources = list(dict.fromkeys(row["source"] for row in rates))
    columns = min(3, len(sources))
    figure, axes = pyplot.subplots(
        -(-len(sources) // columns), columns, figsize=(5.5 * columns, 9), squeeze=False
    )
    families = list(dict.fromkeys(row["codec"].partition("(")[0] for row in rates))
    for axis, source in zip(axes.flat, sources, strict=False):
        for number, family in enumerate(families):
            points = sorted(
                (row["bits-per-parameter"], row["nmse"])
                for row in rates
                if row["source"] == source and row["codec"].partition("(")[0] == family
            )
            style = "o-" if len(points) > 1 else "o"
            axis.plot(*zip(*points, strict=True), style, label=family, color=f"C{number % 10}")
        if source == "Gaussian":
            line = np.geomspace(0.005, 8)
            axis.plot(line, 2 ** (-2 * line), "k:", label="bound")
        axis.set(xscale="log", yscale="log", ylim=(1e-6, 3), title=source)
        axis.set(xlabel="bits per parameter", ylabel="NMSE")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(sources) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=7, ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
