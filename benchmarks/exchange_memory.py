"""Memory of the server's side of the downlink: ``python -m benchmarks.exchange_memory``.

1,000 clients, ten of them a round, and a model of 10 million parameters that moves at random.
Printed is what the downlink says it holds, and the resident memory of the process beyond what
it had before: both end where ``downlink.memory-mb`` puts the limit, beside a few vectors of the
model's size, however many clients there are.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fl_opt.exchange.downlink import DownlinkOptions, build_downlink
from fl_opt.params import ParamSpec

CLIENTS = 1000
COHORT = 10
STEP = 2.0**-7


@dataclass(frozen=True)
class Row:
    """What was held after a number of rounds, in bytes."""

    mode: str
    limit_mb: int
    rounds: int
    clients_served: int
    all_references: int
    held: int
    resident: int


def main() -> None:
    """Measure both modes, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_000_000, help="parameters")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--limit-mb", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    size, limit = arguments.size, arguments.limit_mb
    if arguments.quick:
        size, limit = size // 10, limit // 10
    console = Console()
    rows = []
    for mode, codec in (("shared", f"ecsq(step={STEP})"), ("per-client", "ecsq(1.0)")):
        with console.status(mode):
            rows.append(measure(mode, codec, size, arguments.rounds, limit))
    console.print(as_table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure(mode: str, codec: str, size: int, rounds: int, limit_mb: int) -> Row:
    """Serve random cohorts of clients, each of which holds what it was sent last."""
    spec = ParamSpec.of({"weight": np.zeros(size, np.float32)})
    chance = random.Random(0)  # noqa: S311
    generator = np.random.default_rng(0)
    vector = 0.05 * generator.standard_normal(size, np.float32)
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    downlink = build_downlink(
        DownlinkOptions(mode, codec, first_contact="seed", memory_mb=limit_mb), seed=0
    )
    downlink.begin(spec, vector, {})
    held: dict[int, str] = {}
    for _ in range(rounds):
        nodes = chance.sample(range(CLIENTS), COHORT)
        downlink.prepare(held.get(node_id, "") for node_id in nodes)
        for node_id in nodes:
            delivery = downlink.serve(node_id, held.get(node_id, ""), seed=True)
            held[node_id] = delivery.fingerprint
            downlink.confirm(node_id, delivery.fingerprint)
        vector = vector + _movement(generator, size)
        downlink.advance(vector, {})
    gc.collect()
    return Row(
        mode=mode,
        limit_mb=limit_mb,
        rounds=rounds,
        clients_served=len(held),
        all_references=CLIENTS * 4 * size,
        held=downlink.memory_bytes(),
        resident=process.memory_info().rss - before,
    )


def _movement(generator: np.random.Generator, size: int) -> NDArray[np.float32]:
    return 0.002 * generator.standard_normal(size, np.float32)


def as_table(rows: list[Row]) -> Table:
    """Lay the rows out for a terminal."""
    table = Table("mode", title=f"Megabytes that the server holds for {CLIENTS} clients")
    for heading in ("limit", "rounds", "served", "all references", "held", "resident"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.mode,
            str(row.limit_mb),
            str(row.rounds),
            str(row.clients_served),
            *(f"{v / 1e6:,.0f}" for v in (row.all_references, row.held, row.resident)),
        )
    return table


if __name__ == "__main__":
    main()
