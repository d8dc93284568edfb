"""What every selection policy is: reports in, choices out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Report:
    """What became of one training request.

    Parameters
    ----------
    node_id : int
    server_round : int
        In which it was asked.
    seconds : float
        From the sending of the message to its reply, on the grid's clock, virtual or real.
    used : bool
        Whether a usable update came; False if it failed, was refused or timed out.
    num_examples : int
        That the client trained on; 0: not known.
    loss : float, optional
        The client's mean training loss, as it reported it.
    update_norm : float, optional
        L2 norm of the decoded update.
    """

    node_id: int
    server_round: int
    seconds: float
    used: bool
    num_examples: int = 0
    loss: float | None = None
    update_norm: float | None = None


class Selection(ABC):
    """Chooses the clients of a round.

    A choice depends on the seed, the round, what was observed so far and which nodes are
    connected, and on nothing else. Choosing changes nothing: only reports do.
    """

    name: ClassVar[str]

    @abstractmethod
    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        """Return distinct nodes in ascending order.

        Parameters
        ----------
        node_ids : sequence of int
            The connected nodes, in any order.
        count : int
            How many are wanted; all nodes are returned if there are not that many.
        server_round : int
            From 1.
        """

    def observe(self, report: Report) -> None:  # noqa: B027  # not all policies learn
        """Learn from what became of a request."""

    def state(self) -> dict[str, Any]:
        """Return what was learned, for a checkpoint.

        Returns
        -------
        dict
            Of None, booleans, finite numbers, text, lists, and dicts with keys of text.
        """
        return {}

    def restore(self, values: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from what :meth:`state` of a policy with the same settings returned.

        Raises
        ------
        CheckpointError
            If the values are not such a state.
        """


class Policy(Protocol):
    """The settings of a selection."""

    name: ClassVar[str]

    def build(self, seed: int) -> Selection:
        """Return a selection that has seen nothing yet; ``seed`` is the run's."""


class Filter(Protocol):
    """The settings of a selection that leaves the choice to another, among fewer nodes."""

    name: ClassVar[str]

    def wrap(self, inner: Selection) -> Selection:
        """Return a selection that asks ``inner``."""
