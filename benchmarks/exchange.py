"""Both directions of traffic on a whole run: ``python -m benchmarks.exchange``.

Fashion-MNIST, 100 clients by dirichlet(0.3), the cnn, one local epoch, 60 rounds in the virtual
engine, each with a central evaluation. Bytes are payloads as they were sent, by what they
carried; what Flower adds to them is shown apart. The measure is FedAvgM with the whole model as
float32 both ways.

``--table modes`` compares ways down at 10% participation (the default), ``--table
participation`` at 5, 10 and 50%, ``--table faults`` has runs with lost messages and restarting
clients; ``--quick`` runs six rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flwr.supercore.logger import update_console_handler
from rich.console import Console
from rich.table import Table

from fl_opt.config import ConfigValue
from fl_opt.reporting import load_run
from run_simulation import run

CLIENTS = 100
LAST = 10
TASK: dict[str, ConfigValue] = {
    "dataset": "fashion-mnist",
    "model": "cnn",
    "data.partition": "dirichlet(0.3)",
    "simulation.num-supernodes": CLIENTS,
    "train.local-epochs": 1,
    "train.momentum": 0.0,
    "train.clip-norm": 0.0,
    "train.learning-rate": 0.1,
    "server-average": "none",
    "evaluate.federated-every": 0,
}
UPLINK: dict[str, ConfigValue] = {
    "uplink.codec": "topk(0.02) | ternary",
    "uplink.feedback": "none",
    "server-optimizer": "sgd(eta=1.0, momentum=0.9)",
}
FULL: dict[str, ConfigValue] = {"downlink.mode": "full", "downlink.codec": "fp32"}
FAULTS: dict[str, ConfigValue] = {
    "faults.lose-down": 0.2,
    "faults.lose-up": 0.2,
    "faults.restart": 0.1,
    "round.timeout": 60.0,
}
OVER: dict[str, ConfigValue] = {"round.over-selection": 2.0}
"""Twice as many updates are asked for as are wanted: half of them do not come."""


def down(mode: str, codec: str, **others: ConfigValue) -> dict[str, ConfigValue]:
    """Return the settings of a downlink, with the uplink that all of them share."""
    options = {f"downlink.{key.replace('_', '-')}": value for key, value in others.items()}
    return {**UPLINK, "downlink.mode": mode, "downlink.codec": codec, **options}


@dataclass(frozen=True)
class Variant:
    """Settings to run, under a name."""

    name: str
    config: dict[str, ConfigValue]


BASELINE = Variant(
    "fp32 FedAvgM",
    {
        **FULL,
        "uplink.codec": "none",
        "uplink.feedback": "none",
        "server-optimizer": "sgd(eta=0.5, momentum=0.9)",
    },
)
UPLINK_ONLY = Variant("uplink only", {**FULL, **UPLINK})
CHAIN = Variant("deltas, chain", down("shared", "ecsq(step=0.0078125)", catch_up="chain"))
SUM = Variant("deltas, coded sum", down("shared", "ecsq(step=0.0078125)"))
FINE = Variant("coded sum, half the step", down("shared", "ecsq(step=0.00390625)"))
OWN = Variant("per client, 1 bit", down("per-client", "ecsq(1.0)"))
OWN_TUNED = Variant(
    "per client, 0.9 bit, top 4%",
    {
        **down("per-client", "ecsq(0.9)"),
        "uplink.codec": "topk(0.04) | ternary",
        "server-optimizer": "sgd(eta=0.8, momentum=0.9)",
    },
)
TABLES = {
    "modes": ((0.1,), (BASELINE, UPLINK_ONLY, CHAIN, SUM, FINE, OWN, OWN_TUNED)),
    "participation": ((0.05, 0.1, 0.5), (BASELINE, UPLINK_ONLY, CHAIN, SUM, OWN)),
    "faults": (
        (0.1,),
        (
            BASELINE,
            FINE,
            Variant("coded sum, faults", {**FINE.config, **FAULTS}),
            Variant("coded sum, faults, twice asked", {**FINE.config, **FAULTS, **OVER}),
            OWN_TUNED,
            Variant("per client, faults", {**OWN_TUNED.config, **FAULTS}),
            Variant("per client, faults, twice asked", {**OWN_TUNED.config, **FAULTS, **OVER}),
        ),
    ),
}


@dataclass(frozen=True)
class Row:
    """What a run ended with; all bytes are sums over the run."""

    variant: str
    participation: float
    rounds: int
    seed: int
    accuracy: float
    payload_bytes_up: int
    payload_bytes_down: int
    message_bytes: int
    bytes_down_by_kind: dict[str, int]
    updates_used: int
    updates_missing: int
    stale: int
    ignored: int
    seconds: float
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def payload_bytes(self) -> int:
        """Both directions."""
        return self.payload_bytes_up + self.payload_bytes_down


def main() -> None:
    """Run everything, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", choices=list(TABLES), default="modes")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--only", nargs="+", help="names of variants, such as 'coded sum'")
    parser.add_argument("--participation", nargs="+", type=float, help="shares of all")
    parser.add_argument("--quick", action="store_true", help="six rounds")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    update_console_handler(level="ERROR")
    console = Console()
    rounds = 6 if arguments.quick else arguments.rounds
    shares, variants = TABLES[arguments.table]
    rows: list[Row] = []
    for share in arguments.participation or shares:
        for variant in variants:
            if arguments.only and not any(name in variant.name for name in arguments.only):
                continue
            with console.status(f"{variant.name}, {share:.0%} of the clients a round"):
                rows.append(measure(variant, share, rounds, arguments.seed))
            console.print(as_line(rows[-1]))
            if arguments.output:
                found = [asdict(row) for row in rows]
                arguments.output.write_text(json.dumps(found, indent=1))
    console.print(as_table(rows))


def measure(variant: Variant, participation: float, rounds: int, seed: int) -> Row:
    """Run a variant."""
    config = {
        **TASK,
        **variant.config,
        "round.clients": round(participation * CLIENTS),
        "num-server-rounds": rounds,
        "evaluate.central-every": 1,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        summary = run(config, output=Path(folder) / "run", quiet=True)
        records = load_run(Path(folder) / "run").records
    kinds: Counter[str] = Counter()
    for record in records:
        kinds.update(record.bytes_down_by_kind)
    traffic = summary.communication
    return Row(
        variant=variant.name,
        participation=participation,
        rounds=rounds,
        seed=seed,
        accuracy=summary.convergence.last_accuracy or 0.0,
        payload_bytes_up=traffic.up.payload_bytes,
        payload_bytes_down=traffic.down.payload_bytes,
        message_bytes=traffic.total.message_bytes,
        bytes_down_by_kind=dict(kinds),
        updates_used=summary.participants,
        updates_missing=summary.failures,
        stale=sum(record.stale for record in records),
        ignored=sum(record.ignored for record in records),
        seconds=summary.time.wall_total,
        others={"accuracy": [r.accuracy for r in records if r.accuracy is not None]},
    )


def as_line(row: Row) -> str:
    """Sum a run up while others go on."""
    return (
        f"{row.variant} at {row.participation:.0%}: accuracy {row.accuracy:.4f}, "
        f"{row.payload_bytes / 1e6:.2f} MB, {row.seconds:.0f} s"
    )


def as_table(rows: list[Row]) -> Table:
    """Lay the rows out for a terminal; ratios are to fp32 FedAvgM at the same participation."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.bytes_down_by_kind))
    table = Table("variant", "part", title="Megabytes of 10^6, and where they go")
    for heading in (f"mean of last {LAST}", "total", "fewer", "up", "down", *kinds, "envelope"):
        table.add_column(heading, justify="right")
    for row in rows:
        measure = [
            other
            for other in rows
            if other.variant == BASELINE.name and other.participation == row.participation
        ]
        fewer = f"{measure[0].payload_bytes / row.payload_bytes:.1f}x" if measure else "-"
        columns = [row.payload_bytes_up, row.payload_bytes_down]
        columns += [row.bytes_down_by_kind.get(kind, 0) for kind in kinds]
        columns.append(row.message_bytes - row.payload_bytes)
        table.add_row(
            row.variant,
            f"{row.participation:.0%}",
            f"{row.accuracy:.4f}",
            f"{row.payload_bytes / 1e6:.2f}",
            fewer,
            *(f"{value / 1e6:.2f}" for value in columns),
        )
    return table


if __name__ == "__main__":
    main()
