"""What measuring costs: ``python -m benchmarks.profiler_overhead``.

The reference workload (:mod:`benchmarks.reference_workload`) with ``topk(0.02) | ternary``,
with ``profiling.spans`` and without, in many short turns: the median over turns of the ratio of
the two. Beside it, what spans and what is said of them take by themselves, times how many
there were: on a machine that others use, that is the steadier figure.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.reference_workload import CODECS, CONFIG, timed
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting import load_run
from fl_opt.reporting.strict_json import to_json as to_strict_json
from fl_opt.spans import SpanLog, SpanTotal, from_json, measuring, span, to_json
from run_simulation import run

SPANS = 20_000
SAID = 1_000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=61)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="5 turns")
    arguments = parser.parse_args()
    turns, rounds = 5 if arguments.quick else arguments.turns, arguments.rounds
    update_console_handler(level="WARNING")
    torch.set_num_threads(1)
    console = Console()
    pairs: list[tuple[Cost, Cost]] = []
    for spans in (False, True):  # what is imported or made once counts for neither
        one_run(2, spans=spans)
    with Progress(console=console, transient=True) as progress:
        for turn in progress.track(range(turns)):
            order = (False, True) if turn % 2 else (True, False)
            found = {spans: one_run(rounds, spans=spans) for spans in order}
            pairs.append((found[False], found[True]))
    console.print(as_table(pairs))


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the processor; what the record of the run has of spans."""

    wall: float
    cpu: float
    totals: list[list[SpanTotal]]


def one_run(rounds: int, *, spans: bool) -> Cost:
    """Run the workload, with spans or without."""
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
    replies = [client.spans for record in records for client in record.clients]
    return Cost(wall, cpu, [*replies, *(record.spans for record in records)])


def cost_of_a_span() -> float:
    """Return the seconds that an empty span takes."""
    with measuring(SpanLog()):
        begin = time.perf_counter()
        for _ in range(SPANS):
            with span("empty"):
                pass
        return (time.perf_counter() - begin) / SPANS


def cost_of_saying(totals: list[SpanTotal]) -> float:
    """Return the seconds to write, read and record what one process has to say."""
    begin = time.perf_counter()
    for _ in range(SAID):
        read = from_json(to_json(totals))
        to_strict_json(RoundRecord(1, spans=read).to_dict())
    return (time.perf_counter() - begin) / SAID


def as_table(pairs: list[tuple[Cost, Cost]]) -> Table:
    """Lay the figures out."""
    table = Table("", "without", "with spans", "more", title="Cost of profiling.spans")
    for name, part in (("processor, s", "cpu"), ("clock, s", "wall")):
        off, on = ([getattr(cost, part) for cost in side] for side in zip(*pairs, strict=True))
        more = statistics.median(b / a for a, b in zip(off, on, strict=True)) - 1
        medians = f"{statistics.median(off):.2f}", f"{statistics.median(on):.2f}"
        table.add_row(name, *medians, f"{100 * more:+.2f}%")
    said = [totals for totals in pairs[-1][1].totals if totals]
    count = sum(total.count for totals in said for total in totals)
    each, saying = cost_of_a_span(), cost_of_saying(max(said, key=len))
    wall = statistics.median(cost.wall for cost, _ in pairs)
    for name, seconds in (
        (f"{count:,} spans of {1e6 * each:.1f} us", count * each),
        (f"said {len(said):,} times, {1e6 * saying:.0f} us", len(said) * saying),
    ):
        table.add_row(name, "-", f"{seconds:.4f}", f"{100 * seconds / wall:+.2f}%")
    return table


if __name__ == "__main__":
    main()
