"""Who is there to be asked, who is asked, and what became of it."""

from __future__ import annotations

from collections.abc import Collection as Members
from collections.abc import Mapping
from typing import Any

from flwr.serverapp import Grid

from strategies.nodes import wait_for_nodes
from strategies.selection import Report, Selection


class Roster:
    """Chooses clients by a policy, and tells the policy what it learns from.

    Draws are numbered from 1. Where all clients of a round are chosen at once the number of a
    draw is that of the round, and it takes the round's place in policies.

    Parameters
    ----------
    selection : Selection
    node_timeout : float
        Seconds to wait for enough nodes.
    """

    def __init__(self, selection: Selection, node_timeout: float) -> None:
        self.selection = selection
        self._node_timeout = node_timeout
        self._connected: list[int] = []
        self._draws = 0
        self._asked: dict[int, int] = {}  # by node: the draw in which it was asked last

    def look(self, grid: Grid, needed: int) -> int:
        """Wait until so many nodes are connected; return how many there are.

        Raises
        ------
        ConfigError
            If there are too few after the time.
        """
        self._connected = wait_for_nodes(grid, needed, self._node_timeout)
        return len(self._connected)

    def choose(self, count: int, busy: Members[int]) -> list[int]:
        """Return nodes to ask, in ascending order: ``count``, or all that are not busy."""
        free = [node_id for node_id in self._connected if node_id not in busy]
        count = min(count, len(free))
        if not count:
            return []
        self._draws += 1
        chosen = self.selection.select(free, count, self._draws)
        self._asked |= dict.fromkeys(chosen, self._draws)
        return chosen

    def report(
        self,
        node_id: int,
        seconds: float,
        *,
        used: bool,
        num_examples: int = 0,
        loss: float | None = None,
        update_norm: float | None = None,
    ) -> None:
        """Tell the policy what became of a request; see :class:`~.selection.Report`."""
        if node_id not in self._asked:
            return
        self.selection.observe(
            Report(
                node_id=node_id,
                server_round=self._asked.pop(node_id),
                seconds=seconds,
                used=used,
                num_examples=num_examples,
                loss=loss,
                update_norm=update_norm,
            )
        )

    def state(self) -> dict[str, Any]:
        """Return all that later choices depend on, as plain values."""
        return {
            "draws": self._draws,
            "asked": {str(node_id): draw for node_id, draw in self._asked.items()},
            "policy": self.selection.state(),
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._draws = int(values["draws"])
        self._asked = {int(node): int(draw) for node, draw in values["asked"].items()}
        self.selection.restore(values["policy"])
