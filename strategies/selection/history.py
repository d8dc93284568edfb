"""What reports tell about clients, and selections that choose by it."""

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import CheckpointError
from fl_opt.seeds import derive_seed
from strategies.selection.base import Report, Selection

Column = NDArray[np.float64]

_HUGE: Final = 1e30
"""Values are cut off here, so that products and sums of them stay finite."""


@dataclass(frozen=True)
class Known:
    """What is known of some clients, one entry each; NaN where it is not known.

    Attributes
    ----------
    requests, updates : ndarray of float64, shape (n,)
        How many requests there are reports on, and how many usable updates came.
    failures : ndarray of float64, shape (n,)
        How many of the last requests failed, since the last usable update.
    last_round : ndarray of float64, shape (n,)
        Of the last request; 0: there was none.
    num_examples, loss, update_norm : ndarray of float64, shape (n,)
        As last told.
    seconds : ndarray of float64, shape (n,)
        That the last usable update took, or a failed request since, if that took longer.
    """

    requests: Column
    updates: Column
    failures: Column
    last_round: Column
    num_examples: Column
    loss: Column
    update_norm: Column
    seconds: Column


_COLUMNS: Final = tuple(field.name for field in fields(Known))
_COUNTS: Final = ("requests", "updates", "failures", "last_round")


class History:
    """Numbers about every client that was ever asked, in columns."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        # Row 0 stands for all clients that were never asked.
        self._columns = {
            name: array("d", [0.0 if name in _COUNTS else math.nan]) for name in _COLUMNS
        }

    def add(self, report: Report) -> None:
        """Take down a report; what is missing, or NaN, leaves what was known before."""
        row, columns = self._row_of(report.node_id), self._columns
        columns["requests"][row] += 1
        columns["last_round"][row] = max(columns["last_round"][row], report.server_round)
        if not report.used:
            columns["failures"][row] += 1
            longest = float(np.fmax(columns["seconds"][row], report.seconds))
            self._set(row, "seconds", longest)
            return
        columns["updates"][row] += 1
        columns["failures"][row] = 0
        if report.num_examples > 0:
            self._set(row, "num_examples", report.num_examples)
        self._set(row, "loss", report.loss)
        self._set(row, "update_norm", report.update_norm)
        self._set(row, "seconds", report.seconds)

    def of(self, node_ids: Sequence[int]) -> Known:
        """Return what is known of some clients, in their order."""
        rows = self._rows
        at = np.fromiter((rows.get(node_id, 0) for node_id in node_ids), np.intp, len(node_ids))
        return Known(**{name: np.frombuffer(self._columns[name])[at] for name in _COLUMNS})

    def state(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        columns = {
            name: [None if math.isnan(value) else value for value in column[1:]]
            for name, column in self._columns.items()
        }
        return {"nodes": list(self._rows), **columns}

    @classmethod
    def from_state(cls, values: Mapping[str, Any]) -> History:
        """Build from what :meth:`state` returned.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        history = cls()
        try:
            for node_id in values["nodes"]:
                history._row_of(int(node_id))
            for name, column in history._columns.items():
                found = np.array(values[name], np.float64)
                if found.shape != (len(column) - 1,):
                    raise ValueError(f"{name!r} has shape {found.shape}")
                column[1:] = array("d", found.tolist())
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"history of clients is damaged: {error!r}") from None
        return history

    def _row_of(self, node_id: int) -> int:
        row = self._rows.setdefault(node_id, len(self._rows) + 1)
        for column in self._columns.values():
            if row == len(column):
                column.append(column[0])
        return row

    def _set(self, row: int, name: str, value: float | None) -> None:
        if value is None:
            return
        value = min(max(value, -_HUGE), _HUGE)  # also of integers too large for a float
        if not math.isnan(value):
            self._columns[name][row] = value


class HistorySelection(Selection):
    """A policy that is a function of what is known of the connected clients.

    Parameters
    ----------
    seed : int
        Of the run.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._history = History()

    @abstractmethod
    def pick(
        self, known: Known, count: int, server_round: int, generator: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose ``count`` positions, fewer than there are clients, in any order."""

    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        """Return distinct nodes in ascending order."""
        nodes = sorted(set(node_ids))
        if count >= len(nodes):
            return nodes
        if count < 1:
            return []
        seed = derive_seed(self._seed, f"selection-{self.name}", server_round)
        chosen = self.pick(
            self._history.of(nodes), count, server_round, np.random.default_rng(seed)
        )
        return [nodes[position] for position in np.sort(chosen).tolist()]

    def observe(self, report: Report) -> None:
        """Learn from what became of a request."""
        self._history.add(report)

    def state(self) -> dict[str, Any]:
        """Return what was learned, for a checkpoint."""
        return {"clients": self._history.state()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._history = History.from_state(values.get("clients", {}))


def filled(values: Column, otherwise: float) -> Column:
    """Put the mean of what is known where it is not known; ``otherwise`` if nothing is."""
    unknown = np.isnan(values)
    mean = otherwise if unknown.all() else values[~unknown].mean()
    return np.where(unknown, mean, values)
