"""What measuring costs: ``python -m benchmarks.profiler_overhead``.

The reference workload (:mod:`benchmarks.reference_workload`) with ``topk(0.02) | ternary``,
with ``profiling.spans`` and without, one after the other in turns: the ratio of the medians of
processor time and of the clock. Beside it, what a single span takes, and that times the number
of spans there were: on a machine that others use, that is the steadier figure.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from benchmarks.reference_workload import CODECS, CONFIG, timed
from fl_opt.reporting import load_run
from fl_opt.spans import SpanLog, measuring, span
from run_simulation import run

SPANS = 20_000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="3 turns of 5 rounds")
    arguments = parser.parse_args()
    turns, rounds = (3, 5) if arguments.quick else (arguments.turns, arguments.rounds)
    update_console_handler(level="WARNING")
    torch.set_num_threads(1)
    console = Console()
    wall: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    count = 0
    for spans in (False, True):  # what is imported or made once counts for neither
        one_run(2, spans=spans)
    for turn in range(turns):
        with console.status(f"turn {turn + 1} of {turns}"):
            for spans in (False, True) if turn % 2 else (True, False):
                seconds, processor, found = one_run(rounds, spans=spans)
                wall[spans].append(seconds)
                cpu[spans].append(processor)
                count = max(count, found)
    each = cost_of_a_span()
    console.print(as_table(wall, cpu, count, each))


def one_run(rounds: int, *, spans: bool) -> tuple[float, float, int]:
    """Return wall and processor seconds of a run, and how many spans its record has."""
    config = {
        **CONFIG,
        "num-server-rounds": rounds,
        "uplink.codec": CODECS[-1],
        "profiling.spans": spans,
    }
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        _, wall, cpu = timed(lambda: run(config, output=output, quiet=True))
        records = load_run(output).records
    totals = [
        total
        for record in records
        for totals in (record.spans, *(client.spans for client in record.clients))
        for total in totals
    ]
    return wall, cpu, sum(total.count for total in totals)


def cost_of_a_span() -> float:
    """Return the seconds that an empty span takes."""
    with measuring(SpanLog()):
        begin = time.perf_counter()
        for _ in range(SPANS):
            with span("outer"):
                pass
        return (time.perf_counter() - begin) / SPANS


def as_table(
    wall: dict[bool, list[float]], cpu: dict[bool, list[float]], count: int, each: float
) -> Table:
    """Lay the figures out."""
    table = Table("", "without", "with spans", "more", title="Cost of profiling.spans")
    for name, seconds in (("processor, median s", cpu), ("clock, median s", wall)):
        off, on = statistics.median(seconds[False]), statistics.median(seconds[True])
        table.add_row(name, f"{off:.2f}", f"{on:.2f}", f"{100 * (on / off - 1):+.2f}%")
    total = count * each
    share = 100 * total / statistics.median(wall[False])
    table.add_row(
        f"{count:,} spans of {1e6 * each:.0f} us", "-", f"{total:.3f}", f"{share:+.2f}%"
    )
    return table


if __name__ == "__main__":
    main()
