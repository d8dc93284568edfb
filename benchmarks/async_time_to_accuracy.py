"""Who is waited for, and what that costs: ``python -m benchmarks.async_time_to_accuracy``.

Fashion-MNIST, 100 clients by dirichlet(0.3), the cnn, one local epoch, in the virtual engine.
Speeds and links of clients are spread lognormally, so that the slowest tenth is at least ten
times slower than the median, around 100 Mbit/s and 2,000 samples a second. All runs have the
same codecs both ways, and take about as many updates.

``--table waiting`` compares synchronous rounds, over-selection, deadlines and buffers with ten
clients at work at a time; ``--table selection`` has policies, with several seeds; ``--table
balance`` sizes local work. Times are virtual; a target counts as reached when the mean of five
evaluations in a row is there.
"""

from __future__ import annotations

import argparse
import itertools
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
TARGETS = (0.75, 0.8)
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
    "server-optimizer": "sgd(eta=1.0, momentum=0.9)",
    "server-average": "none",
    "evaluate.federated-every": 0,
    "evaluate.central-every": 1,
}


@dataclass(frozen=True)
class Variant:
    """Settings to run, under a name, for so many steps."""

    name: str
    steps: int
    config: dict[str, ConfigValue]


HALF: dict[str, ConfigValue] = {"server-optimizer": "sgd(eta=0.5, momentum=0.9)"}
"""For steps of half as many updates."""
OVER: dict[str, ConfigValue] = {"round.clients": 7, "round.over-selection": 1.42}
SYNCHRONOUS = Variant("synchronous FedAvgM", 60, {"round.clients": AT_WORK})
WAITING = (
    SYNCHRONOUS,
    Variant("over-selection, 7 of 10", 70, OVER),
    Variant("the same, late ones refused", 70, {**OVER, "round.late-replies": "refuse"}),
    Variant("semi-async, 1 s", 70, {"round.clients": AT_WORK, "round.timeout": 1.0}),
    Variant("fedbuff, 5 of 10", 120, {**HALF, "strategy": "fedbuff(5, 10)"}),
    Variant("fedbuff, 10 of 10", 60, {"strategy": "fedbuff(10, 10)"}),
)
SELECTION = tuple(
    Variant(policy, 60, {"round.clients": AT_WORK, "selection": policy})
    for policy in ("uniform", "oort", "power-of-choice(30)")
)
EQUAL: dict[str, ConfigValue] = {
    "round.clients": AT_WORK,
    "balance": "equal-time(0.05, 2, newcomer=1)",
}
BALANCE = (
    SYNCHRONOUS,
    Variant("equal time", 60, EQUAL),
    Variant("newcomers a quarter", 60, {**EQUAL, "balance": "equal-time(0.05, 4, 0.25)"}),
    Variant("newcomers a tenth", 60, {**EQUAL, "balance": "equal-time(0.02, 4, 0.1)"}),
    Variant("equal time, fednova", 60, {**EQUAL, "strategy": "fednova"}),
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
    curve : list of (float, float)
        Virtual time and accuracy after each step.
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
    curve: list[tuple[float, float]]
    idle: float
    staleness: dict[int, int]
    participation: dict[int, int]

    @property
    def seconds(self) -> float:
        """Of virtual time, all in all."""
        return self.curve[-1][0]

    def reached(self, target: float) -> tuple[int, float] | None:
        """Return step and virtual time at which a target was reached for good measure."""
        for step in range(WINDOW - 1, len(self.curve)):
            window = self.curve[step - WINDOW + 1 : step + 1]
            if statistics.fmean(accuracy for _, accuracy in window) >= target:
                return step, self.curve[step][0]
        return None


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
    times = itertools.accumulate(record.virtual_seconds or 0.0 for record in records)
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
        curve=[
            (seconds, record.accuracy or 0.0)
            for seconds, record in zip(times, records, strict=True)
        ],
        idle=idle_share(records),
        staleness=dict(sorted(missed.items())),
        participation=dict(sorted(counts.items())),
    )


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
    reached = [
        f"{target:.0%} after {found[1]:.1f} s" if (found := row.reached(target)) else "-"
        for target in TARGETS
    ]
    return f"{row.variant}, seed {row.seed}: {', '.join(reached)}, at last {row.accuracy:.4f}"


def as_table(rows: Sequence[Row]) -> Table:
    """Lay medians over seeds out for a terminal; ratios are to the first variant."""
    table = Table("variant", title="Virtual time to an accuracy, medians over seeds")
    for target in TARGETS:
        for heading in (f"steps to {target:.0%}", "seconds", "sooner", "reached"):
            table.add_column(heading, justify="right")
    for heading in ("last 10", "s a step", "idle"):
        table.add_column(heading, justify="right")
    names = list(dict.fromkeys(row.variant for row in rows))
    for name in names:
        own = [row for row in rows if row.variant == name]
        cells: list[str] = []
        for target in TARGETS:
            found = [reached for row in own if (reached := row.reached(target))]
            first = [row.reached(target) for row in rows if row.variant == names[0]]
            seconds = median(seconds for _, seconds in found)
            measure = median(reached[1] for reached in first if reached)
            cells += [
                f"{median(step for step, _ in found):.0f}",
                f"{seconds:.1f}",
                f"{measure / seconds:.2f}x",
                f"{len(found)} of {len(own)}",
            ]
        table.add_row(
            name,
            *cells,
            f"{median(row.accuracy for row in own):.4f}",
            f"{median(row.seconds / row.steps for row in own):.2f}",
            f"{median(row.idle for row in own):.0%}",
        )
    return table


def median(values: Iterable[float]) -> float:
    """Return the median; NaN of nothing."""
    found = list(values)
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
