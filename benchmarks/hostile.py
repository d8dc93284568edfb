"""A fifth of the clients attack, and what comes of it: ``python -m benchmarks.hostile``.

Digits of scikit-learn, the mlp, 20 clients by IID division, all of them in each round, on the
virtual engine; clients 0 to 3 are hostile in every round. They train as the others do and then
send

- sign-flip: minus four times their update, which together undoes what the others do;
- noise: normal noise with five times the standard deviation of their update's entries.

Updates travel in both directions coded. Each strategy is measured beside itself among honest
clients; accuracy is the mean of the last ten central evaluations, the difference in points.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.logger import update_console_handler
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fl_opt.client import app as reference
from fl_opt.client import numpy_client_app
from fl_opt.config import ConfigValue, load_settings
from fl_opt.reporting import load_run
from fl_opt.server_app import run_server
from fl_opt.simulation import build_device_model
from fl_opt.simulation.engines import run_virtual

CLIENTS, HOSTILE = 20, 4
ATTACKS = ("sign-flip", "noise")
LAST = 10
ALLOWED = 0.03
COMMON: dict[str, ConfigValue] = {
    "dataset": "digits",
    "model": "mlp",
    "data.partition": "iid",
    "simulation.num-supernodes": CLIENTS,
    "train.local-epochs": 3,
    "evaluate.federated-every": 0,
    "round.min-nodes": CLIENTS,
    "downlink.codec": "ecsq(2.0)",
}
DENSE: dict[str, ConfigValue] = {"uplink.codec": "int8", "uplink.feedback": "none"}
STRATEGIES: dict[str, dict[str, ConfigValue]] = {
    "fedavg, fp32": {
        "uplink.codec": "none",
        "downlink.mode": "full",
        "downlink.codec": "fp32",
        "round.max-update-norm": "none",
    },
    "fedavg, topk | ternary": {"uplink.codec": "topk(0.02) | ternary"},
    "fedavg, int8": DENSE,
    "multi-krum, int8": {**DENSE, "strategy": f"multi-krum(malicious={HOSTILE}, selected=12)"},
    "fedtrimmedavg, int8": {**DENSE, "strategy": "fedtrimmedavg(beta=0.2)"},
    "fedmedian, int8": {**DENSE, "strategy": "fedmedian"},
    "multi-krum, ecsq(2.0)": {
        "uplink.codec": "ecsq(2.0)",
        "uplink.feedback": "none",
        "strategy": f"multi-krum(malicious={HOSTILE}, selected=12)",
    },
}

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """Accuracy of a strategy among honest clients and under each attack; bytes of a run."""

    strategy: str
    honest: float
    attacked: dict[str, float]
    megabytes: float


class Hostile(NumPyClient):
    """Trains as the client that it stands for, and sends something else."""

    def __init__(self, honest: NumPyClient, attack: str, seed: int) -> None:
        self._honest, self._attack = honest, attack
        self._seed = seed

    def fit(self, parameters: Arrays, config: Any) -> tuple[Arrays, int, Any]:
        """Attack."""
        before = [array.copy() for array in parameters]
        after, count, metrics = self._honest.fit(parameters, config)
        moved = [new - old for new, old in zip(after, before, strict=True)]
        if self._attack == "sign-flip":
            moved = [-4.0 * move for move in moved]
        else:
            draws = np.random.default_rng([self._seed, int(config["server-round"])])
            spread = float(np.concatenate([move.ravel() for move in moved]).std())
            moved = [draws.normal(0.0, 5 * spread, move.shape) for move in moved]
        sent = [(o + m).astype(o.dtype) for o, m in zip(before, moved, strict=True)]
        return sent, count, metrics


def client_fn(context: Context, attack: str) -> NumPyClient:
    """Build the client of a partition."""
    honest = reference.client_fn(context)
    partition = int(context.node_config["partition-id"])
    if not attack or partition >= HOSTILE:
        return honest
    return Hostile(honest, attack, seed=partition)


def accuracy(name: str, attack: str, rounds: int) -> tuple[float, float]:
    """Run a strategy; return its accuracy, and megabytes sent."""
    app: ClientApp = numpy_client_app(partial(client_fn, attack=attack), reference.initial)
    with tempfile.TemporaryDirectory() as folder:
        config = {**COMMON, "num-server-rounds": rounds, **STRATEGIES[name]}
        config |= {"output.folder": folder, "output.name": "run"}
        settings = load_settings(config)
        server = ServerApp()

        @server.main()
        def main(grid: Any, _: Context) -> None:
            run_server(grid, settings, engine="virtual")

        devices = build_device_model(settings.simulation, settings.seed)
        run_virtual(server, app, config, CLIENTS, devices)
        record = load_run(Path(folder) / "run")
    shown = [r.accuracy for r in record.records if r.accuracy is not None][-LAST:]
    sent = sum(r.bytes_up + r.bytes_down for r in record.records)
    return float(np.mean(shown)), sent / 1e6


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="a few rounds")
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    options = parser.parse_args()
    update_console_handler(level="ERROR")
    logging.getLogger("strategies").setLevel(logging.ERROR)  # each refusal is a warning
    console = Console(width=110, highlight=False)
    rows = []
    for name in STRATEGIES:
        honest, megabytes = accuracy(name, "", 4 if options.quick else options.rounds)
        attacked = {
            attack: accuracy(name, attack, 4 if options.quick else options.rounds)[0]
            for attack in ATTACKS
        }
        rows.append(Row(name, honest, attacked, megabytes))
        console.print(f"{name}: {honest:.4f} {attacked}")
    table = Table("strategy, uplink codec", "MB", "honest", *ATTACKS, "within 3 points")
    for row in rows:
        worst = max(row.honest - value for value in row.attacked.values())
        table.add_row(
            row.strategy,
            f"{row.megabytes:.2f}",
            f"{row.honest:.4f}",
            *(
                f"{value:.4f} ({100 * (value - row.honest):+.1f})"
                for value in row.attacked.values()
            ),
            "yes" if worst <= ALLOWED else "no",
        )
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps([row.__dict__ for row in rows], indent=2))


if __name__ == "__main__":
    main()
