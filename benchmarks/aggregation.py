"""Adding updates up: ``python -m benchmarks.aggregation``.

Replies of a model of 10 million parameters at 1% density, from 10 to 1,000 of them. Each is
decoded and added to one accumulator as it arrives; beside it Flower's own
``aggregate_arrayrecords`` gets the same updates dense, where these fit the memory that is
allowed for them. Every count runs in a process of its own; peak memory is what it grew by, the
replies that are held included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fl_opt.codecs import build_codec, decode
from fl_opt.exchange.incoming import UplinkUpdate
from fl_opt.params import ParamSpec
from fl_opt.profiling.memory import peak_memory_bytes
from strategies.update_sum import UpdateSum

Way = Literal["fl_opt", "flower"]

DENSITY = 0.01
DISTINCT = 8
"""Different payloads; larger counts go through them again and again."""
GIGABYTE = 1e9


@dataclass(frozen=True)
class Row:
    """One way of aggregating a number of replies.

    Attributes
    ----------
    seconds_each : float
        Per reply, decoding included: the median of several turns.
    peak_models : float
        Peak memory in float32 models, replies that are held included.
    """

    way: Way
    replies: int
    seconds_each: float
    peak_models: float


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_000_000, help="parameters")
    parser.add_argument("--replies", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--memory-gb", type=float, default=5.0, help="limit for Flower's")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of size and replies")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    size, counts, turns = arguments.size, arguments.replies, arguments.turns
    if arguments.quick:
        size, counts, turns = size // 10, [max(count // 10, 2) for count in counts[:3]], 1
    console = Console()
    rows: list[Row] = []
    for count in counts:
        # Flower holds the replies, and for each the arrays that it makes of them.
        fits = 3 * count * 4 * size < arguments.memory_gb * GIGABYTE
        ways: tuple[Way, ...] = ("fl_opt", "flower") if fits else ("fl_opt",)
        with console.status(f"{count} replies"):
            rows += measure(ways, size, count, turns)
    console.print(as_table(rows, size))
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure(ways: tuple[Way, ...], size: int, count: int, turns: int) -> list[Row]:
    """Take turns; each measurement is a process of its own."""
    found: dict[Way, list[tuple[float, float]]] = {way: [] for way in ways}
    context = multiprocessing.get_context("spawn")
    payloads = make_payloads(size, min(count, DISTINCT))
    for _ in range(turns):
        for way in ways:
            with context.Pool(1) as pool:
                found[way].append(pool.apply(in_process, (way, payloads, size, count)))
    return [
        Row(
            way,
            count,
            statistics.median(seconds for seconds, _ in results) / count,
            statistics.median(peak for _, peak in results) / (4 * size),
        )
        for way, results in found.items()
    ]


def in_process(way: Way, payloads: list[bytes], size: int, count: int) -> tuple[float, float]:
    """Aggregate; return seconds and the growth of the peak of memory in bytes."""
    before = peak_memory_bytes()
    aggregate = add_up if way == "fl_opt" else aggregate_dense
    seconds = aggregate(payloads, size, count)
    return seconds, float(peak_memory_bytes() - before)


def add_up(payloads: list[bytes], size: int, count: int) -> float:
    """Decode payloads one by one and add them to one accumulator; return the seconds."""
    spec = ParamSpec.of({"weight": np.broadcast_to(np.float32(0), (size,))})
    begin = time.perf_counter()
    total = UpdateSum(spec)
    for index in range(count):
        update = decode(payloads[index % len(payloads)], size=size)
        total.add(UplinkUpdate(update, {}), weight=1.0 + index % 5)
    mean, _ = total.mean()
    seconds = time.perf_counter() - begin
    if not np.isfinite(mean).all():
        raise AssertionError("the mean is not finite")
    return seconds


def aggregate_dense(payloads: list[bytes], size: int, count: int) -> float:
    """Have Flower aggregate the same updates sent dense; return the seconds."""
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    replies = list(dense_replies(payloads, size, count))
    begin = time.perf_counter()
    aggregate_arrayrecords(replies, "num-examples")
    return time.perf_counter() - begin


def dense_replies(payloads: list[bytes], size: int, count: int) -> Iterator[RecordDict]:
    """Yield what clients of a stock app would send."""
    for index in range(count):
        dense = decode(payloads[index % len(payloads)], size=size).to_dense()
        yield RecordDict(
            {
                "arrays": ArrayRecord({"weight": Array(dense)}),
                "metrics": MetricRecord({"num-examples": 1 + index % 5}),
            }
        )


def make_payloads(size: int, count: int) -> list[bytes]:
    """Encode random updates."""
    codec = build_codec(f"topk({DENSITY}) | ternary")
    return [codec.encode(random_update(size, seed), seed=seed) for seed in range(count)]


def random_update(size: int, seed: int) -> NDArray[np.float32]:
    """Draw an update with heavy tails."""
    generator = np.random.default_rng(seed)
    update = generator.standard_normal(size, np.float32)
    update *= np.abs(update)
    return update


def as_table(rows: list[Row], size: int) -> Table:
    """Lay the rows out for a terminal."""
    title = f"{size:,} parameters, {DENSITY:.0%} kept"
    table = Table("replies", "way", title=title)
    for heading in ("ms a reply", "peak, models", "times faster"):
        table.add_column(heading, justify="right")
    flower = {row.replies: row for row in rows if row.way == "flower"}
    for row in rows:
        other = flower.get(row.replies)
        faster = f"{other.seconds_each / row.seconds_each:.1f}" if other else "-"
        table.add_row(
            f"{row.replies:,}",
            row.way,
            f"{1e3 * row.seconds_each:.2f}",
            f"{row.peak_models:.2f}",
            faster if row.way == "fl_opt" else "",
        )
    return table


if __name__ == "__main__":
    main()
