"""A Grid around another Grid, to be derived from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class GridProxy(Grid):
    """Passes everything on to the Grid it is given, extras such as a clock included.

    Parameters
    ----------
    grid : Grid
    """

    def __init__(self, grid: Grid) -> None:
        self.inner = grid

    def __getattr__(self, name: str) -> Any:
        # Only asked for what this class lacks: ``clock`` and ``timing_of`` of a VirtualGrid.
        if name == "inner":  # not yet set: a copy or an unpickled object in the making
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def run(self) -> Run:
        """The inner grid's run."""
        return self.inner.run

    def set_run(self, run: Run) -> None:
        """Set the inner grid's run."""
        self.inner.set_run(run)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message as the inner grid does."""
        return self.inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Node ids of the inner grid."""
        return self.inner.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Nodes of the inner grid."""
        return self.inner.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages through the inner grid."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies from the inner grid."""
        return self.inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send and receive through the inner grid."""
        return self.inner.send_and_receive(messages, timeout=timeout)
