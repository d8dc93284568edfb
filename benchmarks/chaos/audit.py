"""The books of a run with faults: what clients computed, and what became of it.

Clients and server have written down what they did, each for itself (``benchmarks/chaos/app``).
Here the records are put side by side, for every client of every run::

    what it knew + what it learned = what it sent + what it kept

and every round of the server is the one before, plus the mean of the updates that it used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, NDArray[Any]]
Sender = tuple[str, int]
"""A run and a node of it: the state of a client belongs to both."""

_CLOSE = 1e-4  # of single precision, relative to what was moved


@dataclass
class Books:
    """What an audit found.

    Attributes
    ----------
    rounds : int
        Of the server, those that were done again counted once.
    updates : int
        That are in the model.
    returned : int
        That clients took back.
    doubled : list of str
        Updates that count twice.
    vanished : list of str
        Mass that is nowhere: neither in the model nor with a client that still knows of it.
    left : float
        L2 norm of what clients kept or had under way when a run or a SuperNode ended.
    accuracy : float
        Mean of the last three rounds'.
    """

    rounds: int = 0
    updates: int = 0
    returned: int = 0
    doubled: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    left: float = 0.0
    accuracy: float = 0.0

    @property
    def balanced(self) -> bool:
        """Whether every update is somewhere, and in one place only."""
        return not self.doubled and not self.vanished


def audit(folder: Path) -> Books:
    """Audit what a job has written into its folder."""
    books = Books()
    server = _lineage(folder / "server")
    senders: dict[Sender, list[Row]] = defaultdict(list)
    for row, name in _read(folder / "clients"):
        run_id, node_id, _ = name.split("-")
        senders[run_id, int(node_id)].append(row)
    kept = {sender: _without_forgotten(rows) for sender, rows in senders.items()}
    used = _audit_server(server, kept, books)
    for sender, rows in kept.items():
        _audit_client(sender, rows, used, books)
    books.rounds = len(server) - 1
    books.accuracy = float(np.mean([row["accuracy"] for row in server[-3:]]))
    return books


def _read(folder: Path) -> Iterator[tuple[Row, str]]:
    """Yield records, oldest first, and their names."""
    paths = sorted(folder.glob("*.npz"), key=lambda path: float(path.stem.rpartition("-")[2]))
    for path in paths:
        with np.load(path) as stored:
            yield dict(stored), path.stem


def _lineage(folder: Path) -> list[Row]:
    """Return the last record of each round: earlier ones were lost with a killed server."""
    rounds: list[Row] = []
    for row, _ in _read(folder):
        del rounds[int(row["round"]) :]
        rounds.append(row)
    return rounds


def _without_forgotten(rows: list[Row]) -> list[Row]:
    """Drop records of clients that were killed before their SuperNode knew of the work."""
    kept: list[Row] = []
    for row in rows:
        if kept and not _follows(kept[-1], row) and _same_start(kept[-1], row):
            kept.pop()
        kept.append(row)
    return kept


def _follows(first: Row, then: Row) -> bool:
    return int(first["after_update"]) == int(then["before_update"]) and np.array_equal(
        first["after_residual"], then["before_residual"]
    )


def _same_start(first: Row, then: Row) -> bool:
    return int(first["before_update"]) == int(then["before_update"]) and np.array_equal(
        first["before_residual"], then["before_residual"]
    )


def _audit_server(
    rounds: list[Row], senders: dict[Sender, list[Row]], books: Books
) -> set[tuple[Sender, int]]:
    """Check that each step is the mean of the updates used; return those, by sender and id."""
    used: set[tuple[Sender, int]] = set()
    for before, row in pairwise(rounds):
        number = int(row["round"])
        updates, weights = [], []
        for node_id in row["used"]:
            sender = (str(row["run_id"]), int(node_id))
            sent = [r for r in senders.get(sender, []) if int(r["round"]) == number]
            if not sent:
                books.vanished.append(f"round {number}: nobody knows of {sender}'s update")
                continue
            key = (sender, int(sent[-1]["after_update"]))
            if key in used:
                books.doubled.append(f"round {number}: update {key} was used before")
            used.add(key)
            updates.append(sent[-1]["after_sent"].astype(np.float64))
            weights.append(float(sent[-1]["num_examples"]))
        step = np.average(updates, axis=0, weights=weights) if updates else 0.0
        expected = before["model"] + step
        if not np.allclose(row["model"], expected, rtol=_CLOSE, atol=_CLOSE):
            error = float(np.abs(row["model"] - expected).max())
            books.vanished.append(f"round {number}: the model is off by {error:.2g}")
    books.updates = len(used)
    return used


def _audit_client(
    sender: Sender, rows: list[Row], used: set[tuple[Sender, int]], books: Books
) -> None:
    """Check that nothing a client computed vanished or counts twice."""
    for row in rows:
        if not bool(row["trained"]):
            continue
        came_back = row["before_sent"] if bool(row["returned"]) else 0.0
        held = row["before_residual"].astype(np.float64) + came_back + row["delta"]
        known = row["after_residual"].astype(np.float64) + row["after_sent"]
        if not np.allclose(held, known, rtol=_CLOSE, atol=_CLOSE):
            error = float(np.abs(held - known).max())
            books.vanished.append(f"{sender}, round {int(row['round'])}: {error:.2g} of mass")
    for first, then in pairwise(rows):
        if not _follows(first, then):
            books.vanished.append(f"{sender}, round {int(then['round'])}: forgot its state")
        key = (sender, int(then["before_update"]))
        if not key[1] or int(then["after_update"]) == key[1]:
            continue  # nothing sent before, or the same once more
        returned = bool(then["returned"])
        books.returned += returned
        if returned and key in used:
            books.doubled.append(f"{sender}: update {key[1]} is in the model and was returned")
        if not returned and key not in used:
            books.vanished.append(f"{sender}: update {key[1]} is neither used nor returned")
    if rows:
        last = rows[-1]
        open_update = (sender, int(last["after_update"])) not in used
        left = last["after_residual"] + (last["after_sent"] if open_update else 0.0)
        books.left += float(np.linalg.norm(left))
