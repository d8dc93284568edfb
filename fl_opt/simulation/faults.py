"""What goes wrong in a simulated federation: lost, late, doubled and damaged messages.

Chance is a pure function here: whether a fault strikes depends on the seed, the kind of fault,
the client and the number of the message (or the round) alone. A plan keeps no state, so that
a run repeats bit for bit, whether in one go or resumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, Literal, TypeAlias

from flwr.app import Array, ArrayRecord, Message

from fl_opt.config import FaultSettings
from fl_opt.errors import ConfigError
from fl_opt.seeds import derive_seed
from fl_opt.simulation.isolation import isolated_message

Fault: TypeAlias = Literal[
    "lose-down",
    "lose-up",
    "duplicate-down",
    "duplicate-up",
    "delay",
    "restart",
    "forget",
    "slow",
    "corrupt-down",
    "corrupt-up",
]
"""The kinds of faults; each is also the name of the setting with its probability."""

DOWN: Final = 0
UP: Final = 1
"""The two directions of a delivery, as places of a draw."""


@dataclass(frozen=True)
class FaultPlan:
    """How likely each kind of fault is, and all draws that follow from the seed.

    The place of a draw is a few integers in [0, 2**32): the client's node id, the number of
    the message, and what tells the copies of a message apart.

    Parameters
    ----------
    seed : int
        In [0, 2**32).
    lose_down, lose_up : float
        Probability that a message to a client, or a reply, never arrives.
    duplicate_down : float
        That a client gets a message twice and handles it twice; one answer arrives.
    duplicate_up : float
        That a reply is delivered twice.
    delay : float
        That a delivery, in either direction, takes extra time.
    delay_seconds : float
        Mean of that time, which is exponentially distributed.
    restart : float
        That a client restarts in a round, asked or not, and loses its state.
    forget : float
        That a client dies after its reply and before its state is saved.
    slow : float
        That the work for a message takes ``slow_factor`` times as long.
    slow_factor : float
    corrupt_down, corrupt_up : float
        That one byte of the Arrays of a message, or reply, is changed.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    seed: int = 0
    lose_down: float = 0.0
    lose_up: float = 0.0
    duplicate_down: float = 0.0
    duplicate_up: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 10.0
    restart: float = 0.0
    forget: float = 0.0
    slow: float = 0.0
    slow_factor: float = 10.0
    corrupt_down: float = 0.0
    corrupt_up: float = 0.0

    def __post_init__(self) -> None:
        highest = {"seed": 2**32 - 1, "delay_seconds": math.inf, "slow_factor": math.inf}
        for field in fields(self):
            value, most = getattr(self, field.name), highest.get(field.name, 1.0)
            least = 1.0 if field.name == "slow_factor" else 0.0
            if not least <= value <= most or value == math.inf:
                allowed = f"a number from {least:g} to {most:g}"
                raise ConfigError(f"fault plan: {field.name} = {value!r} is not {allowed}")

    def happens(self, fault: Fault, *place: int) -> bool:
        """Say whether a fault strikes; nothing is drawn for one that never does."""
        rate: float = getattr(self, fault.replace("-", "_"))
        return rate > 0.0 and self._uniform(fault, *place) < rate

    def extra_seconds(self, *place: int) -> float:
        """Return the delay of a delivery; 0.0 for most."""
        if not self.happens("delay", *place):
            return 0.0
        return -self.delay_seconds * math.log1p(-self._uniform("delay-seconds", *place))

    def answering_copy(self, *place: int) -> int:
        """Return which of the two copies of a doubled message gets its answer through."""
        return self._draw("answering-copy", *place) % 2

    def restarts(self, node_id: int, *, after: int, until: int) -> bool:
        """Say whether a client restarts in a round in ``(after, until]``."""
        if self.restart == 0.0:
            return False
        rounds = range(after + 1, until + 1)
        return any(self.happens("restart", node_id, one) for one in rounds)

    def corrupted(self, fault: Fault, message: Message, *place: int) -> Message:
        """Return a copy with one byte changed, or the message itself if it stays whole.

        All bytes of all Arrays are equally likely. A message without any stays whole.
        """
        if not (message.has_content() and self.happens(fault, *place)):
            return message
        damaged = isolated_message(message)
        records = damaged.content.array_records.values()
        size = sum(len(array.data) for record in records for array in record.values())
        if size == 0:
            return message
        position = self._draw(f"{fault}-position", *place) % size
        mask = 1 + self._draw(f"{fault}-mask", *place) % 255  # changes at least one bit
        for record in records:
            for name, array in record.items():
                if 0 <= position < len(array.data):
                    _flip(record, name, position, mask)
                position -= len(array.data)
        return damaged

    def _uniform(self, purpose: str, *place: int) -> float:
        """Draw a number in [0, 1)."""
        return (self._draw(purpose, *place) >> 10) / 2.0**53

    def _draw(self, purpose: str, *place: int) -> int:
        """Draw an integer in [0, 2**63)."""
        return derive_seed(self.seed, f"fault-{purpose}", *place)


def build_fault_plan(settings: FaultSettings, seed: int) -> FaultPlan:
    """Build the plan that the settings describe.

    Parameters
    ----------
    settings : FaultSettings
    seed : int
        The run's.
    """
    return FaultPlan(seed=seed, **settings.model_dump())


def _flip(record: ArrayRecord, name: str, position: int, mask: int) -> None:
    """Put an Array in place of another that differs in one byte."""
    whole = record[name]
    data = bytearray(whole.data)
    data[position] ^= mask
    record[name] = Array(whole.dtype, whole.shape, whole.stype, bytes(data))
