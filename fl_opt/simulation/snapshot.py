"""The state of the virtual engine as bytes, for checkpoints.

A grid is one blob and each of its clients another, both of the kind that
:func:`fl_opt.checkpoint.pack_state` makes: JSON, and byte strings as arrays of uint8.

========  ========================================  ====================================
Blob      JSON                                      Bytes
========  ========================================  ====================================
grid      the fields of :class:`GridSnapshot`,      ``message-0``, ``message-1``, ...: the
          with the entries of ``held``,             messages of these three, in this order,
          ``travelling`` and ``arrived`` less       as Flower's protobuf ``Message``
          their messages
client    its partition id                          ``state``: Flower's protobuf
                                                    ``RecordDict``
========  ========================================  ====================================

Nothing is pickled. Flower's ``Message`` as protobuf holds its id, and numbers exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common.serde import (
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from fl_opt.checkpoint import pack_state, unpack_state
from fl_opt.errors import CheckpointError
from fl_opt.simulation.transit import Delivery, LinkTiming, Visit

Bytes: TypeAlias = NDArray[np.uint8]

GRID_BLOB: Final = "grid"


def client_blob(partition_id: int) -> str:
    """Return the name of a client's blob."""
    return f"client-{partition_id}"


@dataclass(frozen=True)
class ClientClock:
    """What a grid knows of a client that ever got a message.

    Parameters
    ----------
    partition_id : int
    free_at : float
        When the device is free, in seconds of the grid's clock.
    restarts_until : int
        The round up to which restarts have been taken into account.
    """

    partition_id: int
    free_at: float
    restarts_until: int


@dataclass(frozen=True)
class GridSnapshot:
    """Everything a grid knows, but for the states of its clients.

    Parameters
    ----------
    num_supernodes : int
    time : float
        Of the clock, in seconds.
    last_number : int
        Of the messages sent so far.
    faults_seen : mapping of str to int
        How often each fault has happened.
    clients : sequence of ClientClock
    held : sequence of Visit
        Messages that are delayed on their way to clients.
    travelling : sequence of Delivery
        Replies under way.
    arrived : sequence of Delivery
        Replies that nobody has asked for yet, in order of arrival.
    """

    num_supernodes: int
    time: float
    last_number: int
    faults_seen: Mapping[str, int]
    clients: Sequence[ClientClock]
    held: Sequence[Visit]
    travelling: Sequence[Delivery]
    arrived: Sequence[Delivery]

    def to_bytes(self) -> bytes:
        """Serialize it."""
        header = _Header(
            num_supernodes=self.num_supernodes,
            time=self.time,
            last_number=self.last_number,
            faults_seen=dict(self.faults_seen),
            clients=[_Client(**vars(client)) for client in self.clients],
            held=[_Held.of(visit) for visit in self.held],
            travelling=[_Reply.of(delivery) for delivery in self.travelling],
            arrived=[_Reply.of(delivery) for delivery in self.arrived],
        )
        messages = [visit.message for visit in self.held]
        messages += [delivery.reply for delivery in (*self.travelling, *self.arrived)]
        arrays = {
            f"message-{n}": _as_array(message_to_proto(message).SerializeToString())
            for n, message in enumerate(messages)
        }
        return pack_state(header.model_dump(), arrays)

    @classmethod
    def from_bytes(cls, blob: bytes) -> GridSnapshot:
        """Read what :meth:`to_bytes` made.

        Raises
        ------
        CheckpointError
            If it is anything else.
        """
        values, arrays = unpack_state(blob)
        with _checked(GRID_BLOB):
            header = _Header.model_validate(values)
            count = len(header.held) + len(header.travelling) + len(header.arrived)
            if list(arrays) != [f"message-{n}" for n in range(count)]:
                raise ValueError(f"{len(arrays)} messages, {count} expected")
            if any(one.partition_id >= header.num_supernodes for one in header.clients):
                raise ValueError("a client that the grid does not have")
            messages = map(_message, arrays.values())
            return cls(
                num_supernodes=header.num_supernodes,
                time=header.time,
                last_number=header.last_number,
                faults_seen=header.faults_seen,
                clients=[ClientClock(**vars(client)) for client in header.clients],
                held=[held.visit(next(messages)) for held in header.held],
                travelling=[reply.delivery(next(messages)) for reply in header.travelling],
                arrived=[reply.delivery(next(messages)) for reply in header.arrived],
            )


def state_to_bytes(partition_id: int, state: RecordDict) -> bytes:
    """Serialize the state of a client; equal states give equal bytes."""
    data = recorddict_to_proto(state).SerializeToString(deterministic=True)
    return pack_state({"partition": partition_id}, {"state": _as_array(data)})


def state_from_bytes(partition_id: int, blob: bytes) -> RecordDict:
    """Read what :func:`state_to_bytes` made.

    Raises
    ------
    CheckpointError
        If it is anything else, or the state of another client.
    """
    values, arrays = unpack_state(blob)
    with _checked(client_blob(partition_id)):
        if values != {"partition": partition_id} or list(arrays) != ["state"]:
            raise ValueError("not the state of this client")
        return recorddict_from_proto(ProtoRecordDict.FromString(arrays["state"].tobytes()))


class _Model(BaseModel):
    """A part of the JSON; numbers may be infinite."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Client(_Model):
    partition_id: NonNegativeInt
    free_at: NonNegativeFloat
    restarts_until: NonNegativeInt


class _Held(_Model):
    start: NonNegativeFloat
    number: NonNegativeInt
    repeat: NonNegativeInt
    pushed: NonNegativeFloat
    answers: bool

    @classmethod
    def of(cls, visit: Visit) -> _Held:
        return cls(**{name: getattr(visit, name) for name in cls.model_fields})

    def visit(self, message: Message) -> Visit:
        return Visit(**vars(self), message=message)


class _Timing(_Model):
    download: float
    compute: float
    upload: float
    queued: float


class _Reply(_Model):
    arrival: float
    node_id: NonNegativeInt
    number: NonNegativeInt
    repeat: NonNegativeInt
    timing: _Timing

    @classmethod
    def of(cls, delivery: Delivery) -> _Reply:
        timing = _Timing(**vars(delivery.timing))
        return cls(
            arrival=delivery.arrival,
            node_id=delivery.node_id,
            number=delivery.number,
            repeat=delivery.repeat,
            timing=timing,
        )

    def delivery(self, reply: Message) -> Delivery:
        timing = LinkTiming(**vars(self.timing))
        return Delivery(self.arrival, self.node_id, self.number, self.repeat, timing, reply)


class _Header(_Model):
    num_supernodes: NonNegativeInt
    time: NonNegativeFloat
    last_number: NonNegativeInt
    faults_seen: dict[str, NonNegativeInt]
    clients: list[_Client]
    held: list[_Held]
    travelling: list[_Reply]
    arrived: list[_Reply]


def _as_array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def _message(data: Bytes) -> Message:
    return message_from_proto(ProtoMessage.FromString(data.tobytes()))


@contextmanager
def _checked(blob: str) -> Iterator[None]:
    """Turn whatever a wrong blob causes into one error that names it."""
    try:
        yield
    except Exception as error:  # protobuf, pydantic and Flower each have their own
        reason = " ".join(str(error).split())
        raise CheckpointError(f"blob {blob!r} is not of this engine: {reason:.200}") from error
