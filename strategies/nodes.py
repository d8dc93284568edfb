"""Waiting for clients to connect."""

from __future__ import annotations

import logging
from typing import Any

from flwr.serverapp import Grid

from fl_opt.errors import ConfigError
from fl_opt.simulation.clock import WallClock

_POLL_SECONDS = 0.5
_logger = logging.getLogger(__name__)


def wait_for_nodes(grid: Grid, count: int, timeout: float) -> list[int]:
    """Return the connected nodes once there are ``count`` of them.

    Parameters
    ----------
    grid : Grid
        Its ``clock`` measures the time, if it has one.
    count : int
        How many are needed.
    timeout : float
        Seconds to wait.

    Raises
    ------
    ConfigError
        If there are too few after that.
    """
    clock: Any = getattr(grid, "clock", None) or WallClock()
    deadline = clock.time() + timeout
    told = -1
    while len(node_ids := list(grid.get_node_ids())) < count:
        if clock.time() >= deadline:
            raise ConfigError(
                f"a round needs {count} clients, but {len(node_ids)} are connected "
                f"after {timeout:g} s"
            )
        if len(node_ids) != told:
            told = len(node_ids)
            _logger.info("waiting for clients: %d connected, %d needed", told, count)
        clock.sleep(_POLL_SECONDS)
    return node_ids
