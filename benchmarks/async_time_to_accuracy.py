"""Who is waited for, and what that costs: ``python -m benchmarks.async_time_to_accuracy``.

Fashion-MNIST, 100 clients by dirichlet(0.3), the cnn, one local epoch, in the virtual engine.
Speeds and links of clients are spread lognormally, so that the slowest tenth is at least ten
times slower than the median, around 100 Mbit/s and 2,000 samples a second. All runs have the
same codecs both ways.

``--table waiting`` compares synchronous rounds, over-selection, deadlines and buffers with ten
clients at work at a time; ``--table selection`` has policies, with several seeds; ``--table
balance`` sizes local work. Times are virtual; a target counts as reached when the mean of five
evaluations in a row is there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from fl_opt.config import ConfigValue
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting import load_run
from run_simulation import run

CLIENTS = 100
AT_WORK = 10
TARGET = 0.8
WINDOW = 5
SPREAD = math.log(10.0) / statistics.NormalDist().inv_cdf(0.9)
TASK: dict[str, ConfigValue] = {
    "dataset": "fashion-mnist",
    "model": "cnn",
    "data.partition": "dirichlet(0.3)",
    "simulation.num-supernodes": CLIENTS,
    "simulation.spread": SPREAD,
    "simulation.uplink-mbps": 100.0,
    "simulation.downlink-mbps": 100.0,
    "train.local-epochs": 1,
    "train.momentum": 0.0,
    "train.clip-norm": 0.0,
    "train.learning-rate": 0.1,
    "uplink.codec": "topk(0.05) | ternary",
    "uplink.feedback": "none",
    "downlink.mode": "shared",
    "downlink.codec": "ecsq(step=0.00390625)",
    "server-optimizer": "sgd(eta=0.5, momentum=0.9)",
    "evaluate.federated-every": 0,
    "evaluate.central-every": 1,
}


@dataclass(frozen=True)
class Variant:
    """Settings to run, under a name, for so many steps."""

    name: str
    steps: int
    config: dict[str, ConfigValue]


SYNCHRONOUS = Variant("synchronous FedAvgM", 40, {"round.clients": AT_WORK})
WAITING = (
    SYNCHRONOUS,
    Variant("over-selection, 7 of 10", 45, {"round.clients": 7, "round.over-selection": 1.42}),
    Variant(
        "over-selection, 7 of 10, late ones refused",
        45,
        {"round.clients": 7, "round.over-selection": 1.42, "round.late-replies": "refuse"},
    ),
    Variant("semi-async, 1 s", 45, {"round.clients": AT_WORK, "round.timeout": 1.0}),
    Variant("fedbuff, 5 of 10", 90, {"strategy": "fedbuff(5, 10)"}),
    Variant("fedbuff, 10 of 10", 45, {"strategy": "fedbuff(10, 10)"}),
)
SELECTION = tuple(
    Variant(policy, 35, {"round.clients": AT_WORK, "selection": policy})
    for policy in ("uniform", "oort", "power-of-choice(30)")
)
BALANCE = (
    Variant("all their work", 40, {"round.clients": AT_WORK}),
    Variant(
        "equal time, FedNova",
        40,
        {"round.clients": AT_WORK, "strategy": "fednova", "balance": "equal-time(0.05, 2)"},
    ),
    Variant(
        "equal time",
        40,
        {"round.clients": AT_WORK, "balance": "equal-time(0.05, 2)"},
    ),
)
TABLES: dict[str, Sequence[Variant]] = {
    "waiting": WAITING,
    "selection": SELECTION,
    "balance": BALANCE,
}


@dataclass(frozen=True)
class Row:
    """What a run came to.

    Attributes
    ----------
    steps_to_target, seconds_to_target : int and float, or None
        None if it was not reached.
    idle : float
        Share of the time of clients that were asked in which they had nothing to do, since
        others were waited for.
    staleness, participation : dict
        How many updates had missed so many steps; how many clients sent so many updates.
    """

    variant: str
    seed: int
    steps: int
    accuracy: float
    steps_to_target: int | None
    seconds_to_target: float | None
    seconds: float
    idle: float
    staleness: dict[int, int]
    participation: dict[int, int]


def main() -> None:
    """Run everything, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", choices=list(TABLES), default="waiting")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--only", nargs="+", help="names of variants, or parts of them")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    update_console_handler(level="ERROR")
    console = Console()
    rows: list[Row] = []
    for variant in TABLES[arguments.table]:
        if arguments.only and not any(name in variant.name for name in arguments.only):
            continue
        for seed in arguments.seeds:
            steps = variant.steps // 10 if arguments.quick else variant.steps
            with console.status(f"{variant.name}, seed {seed}"):
                rows.append(measure(variant, seed, steps))
            console.print(as_line(rows[-1]))
            if arguments.output:
                found = [asdict(row) for row in rows]
                arguments.output.write_text(json.dumps(found, indent=1))
    console.print(as_table(rows))
    if arguments.table == "waiting":
        console.print(histogram(rows, "staleness", "steps missed"))
        console.print(histogram(rows, "participation", "updates a client"))


def measure(variant: Variant, seed: int, steps: int) -> Row:
    """Run a variant."""
    config = {**TASK, **variant.config, "num-server-rounds": steps, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        summary = run(config, output=Path(folder) / "run", quiet=True)
        records = load_run(Path(folder) / "run").records
    reached = first_reached(records)
    updates = Counter(
        client.node_id
        for record in records
        for client in record.clients
        for _ in client.staleness
    )
    missed = Counter(
        s for record in records for client in record.clients for s in client.staleness
    )
    counts = Counter(updates.values())
    counts[0] = CLIENTS - len(updates)
    return Row(
        variant=variant.name,
        seed=seed,
        steps=steps,
        accuracy=summary.convergence.last_accuracy or 0.0,
        steps_to_target=reached[0] if reached else None,
        seconds_to_target=reached[1] if reached else None,
        seconds=sum(record.virtual_seconds or 0.0 for record in records),
        idle=idle_share(records),
        staleness=dict(sorted(missed.items())),
        participation=dict(sorted(counts.items())),
    )


def first_reached(records: Iterable[RoundRecord]) -> tuple[int, float] | None:
    """Return step and virtual time at which the target was reached for good measure."""
    seconds = 0.0
    window: list[float] = []
    for record in records:
        seconds += record.virtual_seconds or 0.0
        if record.accuracy is not None:
            window = [*window, record.accuracy][-WINDOW:]
        if len(window) == WINDOW and statistics.fmean(window) >= TARGET:
            return record.server_round, seconds
    return None


def idle_share(records: Iterable[RoundRecord]) -> float:
    """Return ``1 - busy / elapsed`` of the clients whose updates were used in each round."""
    busy = elapsed = 0.0
    for record in records:
        used = [client for client in record.clients if client.staleness]
        busy += sum(min(client.seconds, record.virtual_seconds or 0.0) for client in used)
        elapsed += len(used) * (record.virtual_seconds or 0.0)
    return 1.0 - busy / elapsed if elapsed else 0.0


def as_line(row: Row) -> str:
    """Sum a run up while others go on."""
    reached = (
        "not reached" if row.seconds_to_target is None else f"{row.seconds_to_target:.1f} s"
    )
    return f"{row.variant}, seed {row.seed}: {TARGET:.0%} {reached}, at last {row.accuracy:.4f}"


def as_table(rows: Sequence[Row]) -> Table:
    """Lay medians over seeds out for a terminal; ratios are to the first variant."""
    table = Table("variant", title=f"Virtual time to {TARGET:.0%}, medians over seeds")
    for heading in ("steps", "seconds", "sooner", "last 10", "s a step", "idle", "reached"):
        table.add_column(heading, justify="right")
    first: float | None = None
    for name in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == name]
        done = [row for row in own if row.seconds_to_target is not None]
        seconds = median(row.seconds_to_target for row in done)
        first = seconds if first is None else first
        table.add_row(
            name,
            f"{median(row.steps_to_target for row in done):.0f}",
            f"{seconds:.1f}",
            f"{first / seconds:.2f}x",
            f"{median(row.accuracy for row in own):.4f}",
            f"{median(row.seconds / row.steps for row in own):.2f}",
            f"{median(row.idle for row in own):.0%}",
            f"{len(done)} of {len(own)}",
        )
    return table


def median(values: Iterable[float | None]) -> float:
    """Return the median of what is there; NaN for nothing."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else math.nan


def histogram(rows: Sequence[Row], what: str, title: str) -> Table:
    """Lay a histogram of each variant out, in bins that grow."""
    bins = [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 10**9)]
    table = Table("variant", title=title)
    for low, high in bins:
        last = f"{low}+" if high > 10**6 else f"{low}-{high}"
        table.add_column(str(low) if low == high else last, justify="right")
    for row in rows:
        counts: dict[int, int] = getattr(row, what)
        cells = [sum(n for key, n in counts.items() if a <= key <= b) for a, b in bins]
        table.add_row(row.variant, *(str(cell) for cell in cells))
    return table


if __name__ == "__main__":
    main()
