"""Rest for clients that fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fl_opt.errors import CheckpointError
from strategies.selection.base import Report, Selection
from strategies.selection.checks import check_between


@dataclass(frozen=True)
class Available:
    """Leave out clients whose last requests failed; another policy chooses from the others.

    A client rests for 1 round after a failure, for 2 after the next one, then for 4, 8, ...
    until it gives a usable update. If too few clients remain, those that have rested longest
    may be chosen again.

    Parameters
    ----------
    longest : int
        Most rounds of rest, from 1 to 1,000,000.
    """

    longest: int = 32

    name: ClassVar[str] = "available"

    def __post_init__(self) -> None:
        check_between(1, 1_000_000, longest=self.longest)

    def wrap(self, inner: Selection) -> AvailableSelection:
        """Return a selection that asks ``inner``."""
        return AvailableSelection(self, inner)


class AvailableSelection(Selection):
    """See :class:`Available`.

    Parameters
    ----------
    settings : Available
    inner : Selection
        It is told everything.
    """

    name: ClassVar[str] = Available.name

    def __init__(self, settings: Available, inner: Selection) -> None:
        self._settings = settings
        self._inner = inner
        self._latest = 0  # round that there was a report on
        self._failed: dict[
            int, tuple[int, int]
        ] = {}  # failures in a row, and round of the last

    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        """Return distinct nodes in ascending order."""
        nodes = set(node_ids)
        resting = {
            node_id: last
            for node_id, (failures, last) in self._failed.items()
            if node_id in nodes and server_round <= last + self._rest(failures)
        }
        missing = min(count - (len(nodes) - len(resting)), len(resting))
        if missing > 0:
            recalled = sorted(resting.values())[missing - 1]
            resting = {node_id: last for node_id, last in resting.items() if last > recalled}
        awake = [node_id for node_id in nodes if node_id not in resting]
        return self._inner.select(awake, count, server_round)

    def observe(self, report: Report) -> None:
        """Learn from what became of a request."""
        # A request may fail long after its round: the rest begins when that is known.
        self._latest = max(self._latest, report.server_round)
        if report.used:
            self._failed.pop(report.node_id, None)
        else:
            failures, _ = self._failed.get(report.node_id, (0, 0))
            self._failed[report.node_id] = (failures + 1, self._latest)
        self._inner.observe(report)

    def state(self) -> dict[str, Any]:
        """Return what was learned, for a checkpoint."""
        failed = [[node_id, *what] for node_id, what in self._failed.items()]
        return {"latest": self._latest, "failed": failed, "inner": self._inner.state()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        try:
            self._latest = int(values["latest"])
            self._failed = {
                int(node_id): (int(failures), int(last))
                for node_id, failures, last in values["failed"]
            }
            inner = dict(values["inner"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"list of failed clients is damaged: {error!r}") from None
        self._inner.restore(inner)

    def _rest(self, failures: int) -> int:
        """Return the rounds of rest after so many failures in a row."""
        return min(1 << min(failures - 1, 20), self._settings.longest)
