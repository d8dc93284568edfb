"""Flower's SuperNode, asking for messages more often than every three seconds.

Flower 1.42 has its SuperNode sleep 3 s when there is no message, and half a second between two
looks for a client's reply. With small models these sleeps are most of a round; there is no
setting for them. Its client processes train with all cores, too, whoever else is there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from fl_opt.errors import ConfigError, FlOptError
from fl_opt.simulation.resources import cores

THREADS = "OMP_NUM_THREADS"
SUPEREXEC_INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"
SHORTEST, LONGEST = 0.01, 60.0  # seconds; what Flower allows for its SuperExec


def run_supernode(arguments: Sequence[str], poll_seconds: float, sharing: int = 1) -> None:
    """Run ``flower-supernode`` in this process, with no sleep longer than an interval.

    Parameters
    ----------
    arguments : sequence of str
        Of ``flower-supernode``.
    poll_seconds : float
        From 0.01 to 60: how often to ask the SuperLink for messages, and to look for the
        reply of the client. The SuperExec looks as often for a process to start, unless
        ``FLWR_SUPEREXEC_TASK_POLL_INTERVAL`` says otherwise.
    sharing : int, default 1
        How many SuperNodes share the machine. The client of each trains with as many threads
        as that leaves it cores, unless ``OMP_NUM_THREADS`` says otherwise.

    Raises
    ------
    ConfigError
        If the interval is out of range, or ``sharing`` is not at least 1.
    FlOptError
        If this version of Flower does not sleep where 1.42 does.
    """
    if not SHORTEST <= poll_seconds <= LONGEST:
        raise ConfigError(f"poll-seconds = {poll_seconds} is not in [{SHORTEST}, {LONGEST:g}]")
    if sharing < 1:
        raise ConfigError(f"share-cores = {sharing} is not at least 1")
    os.environ.setdefault(SUPEREXEC_INTERVAL, str(poll_seconds))
    os.environ.setdefault(THREADS, str(max(cores() // sharing, 1)))
    import flwr
    from flwr.supernode import start_client_internal as loop
    from flwr.supernode.cli import flower_supernode

    if getattr(loop, "time", None) is not time:
        raise FlOptError(
            f"flwr {flwr.__version__} waits in another way than 1.42: use flower-supernode"
        )
    setattr(loop, "time", _Impatient(poll_seconds))  # noqa: B010 - no name of its own
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()


class _Impatient:
    """The module ``time``, but for its sleeps, which are never longer than an interval."""

    def __init__(self, longest: float) -> None:
        self._longest = longest

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, self._longest))
