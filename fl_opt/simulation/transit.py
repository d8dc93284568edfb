"""What is under way in the virtual engine: messages to clients, and their replies."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import Message

from fl_opt.simulation.runner import Pending


@dataclass(frozen=True)
class LinkTiming:
    """Where the time of one message and its reply went, in virtual seconds.

    ``download`` and ``upload`` include latency and what a fault adds to them; ``queued`` is
    the time that the message waited for its device to finish earlier ones.
    """

    download: float
    compute: float
    upload: float
    queued: float = 0.0

    @property
    def total(self) -> float:
        """From pushing the message to the arrival of its reply."""
        return self.queued + self.download + self.compute + self.upload


@dataclass(order=True)
class Visit:
    """A message that is about to reach a client's link; ordered by when it does.

    Attributes
    ----------
    start : float
        When its download may begin, in seconds of the grid's clock.
    number : int
        Of the message.
    repeat : int
        0, or 1 for the second copy of a doubled message.
    pushed : float
        When it was sent.
    answers : bool
        Whether its answer goes back; of two copies only one's does.
    """

    start: float
    number: int
    repeat: int
    pushed: float = field(compare=False)
    answers: bool = field(compare=False)
    message: Message = field(compare=False)

    @property
    def expiry(self) -> float:
        """When the message's time to live ends."""
        return self.pushed + self.message.metadata.ttl


@dataclass(frozen=True)
class Job:
    """A client at work on a message.

    Attributes
    ----------
    visit : Visit
    queued, transfer : float
        How long the message waited for the device, and how long its download took, in seconds.
    received : float
        When the client had it, in seconds of the grid's clock; no answer arrives before.
    forget : bool
        Whether the client dies before it has saved its state.
    pending : callable
        Waits for the outcome.
    """

    visit: Visit
    queued: float
    transfer: float
    received: float
    forget: bool
    pending: Pending


@dataclass(order=True)
class Delivery:
    """A reply on its way to the server; ordered by arrival, then node.

    Attributes
    ----------
    arrival : float
        In seconds of the grid's clock.
    node_id : int
        The client.
    number : int
        Of the message that it answers.
    repeat : int
        0, or 1 for the second copy of a doubled reply.
    """

    arrival: float
    node_id: int
    number: int
    repeat: int
    timing: LinkTiming = field(compare=False)
    reply: Message = field(compare=False)

    @property
    def message_id(self) -> str:
        """Id of the message that it answers."""
        return message_id(self.number)


def message_id(number: int) -> str:
    """Return the id of a message; as long as Flower's, which are hashes."""
    return f"{number:064x}"


def reply_id(number: int) -> str:
    """Return the id of the reply to a message."""
    return message_id(number | 1 << 255)
