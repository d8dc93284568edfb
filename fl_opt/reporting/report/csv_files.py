"""The same numbers as CSV, for spreadsheets and other tools."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from fl_opt.profiling.rounds import ClientRecord, RoundRecord
from fl_opt.reporting.reader import Run
from fl_opt.reporting.report.names import run_names

_PLAIN = ("int", "float", "str", "float | None", "str | None")


def write_csv(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write ``rounds.csv`` and ``clients.csv``: a line for each round, and each client in it.

    Returns
    -------
    list of Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounds, clients = folder / "rounds.csv", folder / "clients.csv"
    of_round = [f.name for f in fields(RoundRecord) if f.type in _PLAIN]
    of_client = [f.name for f in fields(ClientRecord) if f.type in _PLAIN]
    named = list(zip(run_names(runs), runs, strict=True))
    with rounds.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", *of_round])
        for name, run in named:
            writer.writerows(
                [name, *(getattr(record, key) for key in of_round)] for record in run.records
            )
    with clients.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "server_round", *of_client])
        for name, run in named:
            writer.writerows(
                [name, record.server_round, *(getattr(client, key) for key in of_client)]
                for record in run.records
                for client in record.clients
            )
    return [rounds, clients]
