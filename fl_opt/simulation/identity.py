"""Who this process is to Flower.

A ``Message`` takes its run and sender from a process-wide identity that Flower's own
runtimes set. The virtual engine has no runtime around it and sets the identity here: the
only place that touches this internal interface of Flower 1.42.
"""

from __future__ import annotations

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

VIRTUAL_RUN_ID = 1


def act_as_server(run_id: int = VIRTUAL_RUN_ID) -> None:
    """Make this process the ServerApp of a run, so that it may create messages."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    TaskIdentity.task_id = 1
