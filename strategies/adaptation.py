"""The codec of each client, where the settings leave it to be chosen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Message

from fl_opt.errors import ConfigError
from fl_opt.exchange.budget import Budget, Exchange, captured_energy
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.exchange.ladder import Level, build_ladder, is_auto
from fl_opt.exchange.traffic import message_bytes


class Adaptation:
    """Chooses a level for each client that is asked, and learns from what comes back.

    Parameters
    ----------
    codec : str
        Spec of what clients send, or ``auto``.
    downlink : DownlinkOptions
        Whose codec may be ``auto`` in mode ``per-client``.

    Attributes
    ----------
    budget : Budget or None
        None if nothing is left to be chosen: then all of this does nothing.
    codec : str
        What clients send of whom nothing is known.
    downlink : DownlinkOptions
        The same for what they are sent.

    Raises
    ------
    ConfigError
        If a spec is wrong, or auto is asked for where it cannot be.
    """

    def __init__(self, codec: str, downlink: DownlinkOptions) -> None:
        if is_auto(downlink.codec) and downlink.mode != "per-client":
            raise ConfigError(
                f"downlink codec {downlink.codec!r} needs downlink.mode = 'per-client', not "
                f"{downlink.mode!r}: elsewhere clients share what they are sent"
            )
        ladder = build_ladder(codec, downlink.codec)
        self.budget = Budget(ladder) if ladder is not None else None
        self.codec, self.downlink = codec, downlink
        if ladder is not None:
            level = ladder.levels[ladder.ordinary]
            self.codec = level.up
            if level.down is not None:
                self.downlink = dataclasses.replace(downlink, codec=level.down)
        self._given: dict[int, int] = {}  # by node: the level of the last message
        self._sent: dict[int, int] = {}  # by node: its bytes

    def begin(self, size: int) -> None:
        """Be told the number of the model's parameters."""
        if self.budget is not None:
            self.budget.begin(size)

    def choose(self, nodes: Sequence[int], wanted: int) -> None:
        """Choose for clients that are asked together, of whom so many are waited for."""
        if self.budget is not None:
            self._given |= self.budget.choose(nodes, wanted)

    def level(self, node_id: int) -> Level | None:
        """Return what was chosen for a client; None: what all others have."""
        if self.budget is None or node_id not in self._given:
            return None
        return self.budget.ladder.levels[self._given[node_id]]

    def sent(self, message: Message) -> None:
        """Note a message to a client."""
        if self.budget is not None:
            self._sent[message.metadata.dst_node_id] = message_bytes(message)

    def observe(
        self,
        reply: Message,
        *,
        seconds: float,
        work_seconds: float,
        sent_norm: float,
        update_norm: float,
    ) -> None:
        """Learn from a reply whose update was used.

        Parameters
        ----------
        reply : Message
        seconds, work_seconds : float
            From the message to the reply, and what of it the client worked.
        sent_norm, update_norm : float
            L2 norms of the update as it came, and before it was coded (0: not known).
        """
        node_id = reply.metadata.src_node_id
        if self.budget is None or node_id not in self._given or not math.isfinite(seconds):
            return
        self.budget.observe(
            node_id,
            Exchange(
                level=self._given[node_id],
                bytes_down=self._sent.get(node_id, 0),
                bytes_up=message_bytes(reply),
                seconds=seconds,
                work_seconds=work_seconds,
                energy=captured_energy(sent_norm, update_norm),
            ),
        )

    def end_round(self, loss: float | None) -> None:
        """Be told the mean training loss of a round."""
        if self.budget is not None:
            self.budget.end_round(loss)

    def mbps(self, node_id: int) -> tuple[float, float] | None:
        """Return a client's bandwidth down and up in megabits a second, as far as known."""
        link = self.budget.link(node_id) if self.budget is not None else None
        return link.mbps if link is not None else None

    def state(self) -> dict[str, Any]:
        """Return all that later choices depend on, as plain values."""
        if self.budget is None:
            return {}
        return {
            "budget": self.budget.state(),
            "given": {str(node): level for node, level in self._given.items()},
            "sent": {str(node): size for node, size in self._sent.items()},
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned; of a run without, from nothing.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        if self.budget is None or not values:
            return
        self.budget.restore(values["budget"])
        self._given = {int(node): int(level) for node, level in values["given"].items()}
        self._sent = {int(node): int(size) for node, size in values["sent"].items()}
