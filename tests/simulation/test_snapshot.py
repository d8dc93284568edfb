"""What the virtual engine saves comes back exactly, and nothing else is taken for it."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.checkpoint import pack_state
from fl_opt.errors import CheckpointError
from fl_opt.simulation.identity import act_as_server
from fl_opt.simulation.snapshot import (
    ClientClock,
    GridSnapshot,
    state_from_bytes,
    state_to_bytes,
)
from fl_opt.simulation.transit import Delivery, LinkTiming, Visit, message_id
from tests.simulation.apps import question

names = st.text(max_size=5)
whole = st.integers(-(2**63), 2**64 - 1)
floats = st.floats()  # NaN and infinities, too
seconds = st.floats(0.0, allow_nan=False)
counts = st.integers(0, 2**31)
scalars = whole | floats | st.booleans() | st.text(max_size=5) | st.binary(max_size=5)
unsigned, signed = st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
lists = st.one_of(
    *(st.lists(kind, max_size=3) for kind in (unsigned, signed, floats, st.binary(max_size=3)))
)
numbers = whole | floats | st.lists(floats, max_size=3) | st.lists(signed, max_size=3)
arrays = st.builds(
    Array,
    st.sampled_from(["uint8", "float32", ""]),
    st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
    names,
    st.binary(max_size=20),
)
records = st.one_of(
    st.dictionaries(names, arrays, max_size=3).map(ArrayRecord),
    st.dictionaries(names, numbers, max_size=3).map(MetricRecord),
    st.dictionaries(names, scalars | lists, max_size=3).map(ConfigRecord),
)
contents = st.dictionaries(names, records, max_size=3).map(RecordDict)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    act_as_server()
    ttl = draw(st.floats(1.0, 1e6))
    message = Message(draw(contents), draw(counts), "train", ttl=ttl, group_id=draw(names))
    message.metadata.__dict__["_message_id"] = message_id(draw(counts))
    if draw(st.booleans()):
        return message
    if draw(st.booleans()):
        return Message(draw(contents), reply_to=message)
    return Message(
        Error(draw(st.integers(0, 300)), draw(st.text(min_size=1))), reply_to=message
    )


timings = st.builds(LinkTiming, seconds, seconds, seconds, seconds)
visits = st.builds(Visit, seconds, counts, counts, seconds, st.booleans(), messages())
deliveries = st.builds(Delivery, seconds, counts, counts, counts, timings, messages())
snapshots = st.builds(
    GridSnapshot,
    num_supernodes=st.just(10),
    time=seconds,
    last_number=counts,
    faults_seen=st.dictionaries(names, counts, max_size=3),
    clients=st.lists(st.builds(ClientClock, st.integers(0, 9), seconds, counts), max_size=3),
    held=st.lists(visits, max_size=2),
    travelling=st.lists(deliveries, max_size=2),
    arrived=st.lists(deliveries, max_size=2),
)


def plain(value: Any) -> Any:
    """All that there is to a message or snapshot, as text in which NaN equals NaN."""
    if isinstance(value, Message):
        body = repr(value.error) if value.has_error() else plain(value.content)
        return repr(value.metadata.__dict__), body
    if isinstance(value, RecordDict):
        return [(name, type(record), repr(record)) for name, record in value.items()]
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, GridSnapshot | Visit | Delivery):
        return {name: plain(item) for name, item in vars(value).items()}
    return repr(value)


@given(snapshots)
def test_a_snapshot_comes_back_exactly(snapshot: GridSnapshot) -> None:
    blob = snapshot.to_bytes()
    back = GridSnapshot.from_bytes(blob)
    assert plain(back) == plain(snapshot)
    assert back.to_bytes() == blob


@given(contents, st.integers(0, 100))
def test_a_state_comes_back_exactly(state: RecordDict, partition: int) -> None:
    blob = state_to_bytes(partition, state)
    assert plain(state_from_bytes(partition, blob)) == plain(state)
    assert state_to_bytes(partition, state) == blob
    with pytest.raises(CheckpointError, match=f"'client-{partition + 1}'.* this client"):
        state_from_bytes(partition + 1, blob)


def some_snapshot() -> GridSnapshot:
    """One of everything."""
    act_as_server()
    message = question(1001, size=20, ttl=60.0)
    reply = Message(message.content, reply_to=message)
    failure = Message(Error(3, "gone"), reply_to=message)
    timing = LinkTiming(0.5, 1.5, 0.25)
    return GridSnapshot(
        num_supernodes=2,
        time=7.25,
        last_number=9,
        faults_seen={"lose-up": 2},
        clients=[ClientClock(1, 6.5, 3)],
        held=[Visit(8.0, 9, 1, 7.0, True, message)],
        travelling=[Delivery(9.0, 1001, 8, 0, timing, reply)],
        arrived=[Delivery(5.0, 1001, 7, 0, timing, failure)],
    )


BLOB = some_snapshot().to_bytes()


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(BLOB) - 1), st.integers(0, 255)), min_size=1))
def test_damage_gives_one_kind_of_error_or_another_snapshot(
    damage: list[tuple[int, int]],
) -> None:
    blob = bytearray(BLOB)
    for position, value in damage:
        blob[position] = value
    # What still makes sense is for the checksums of checkpoints to find.
    with contextlib.suppress(CheckpointError):
        GridSnapshot.from_bytes(bytes(blob)).to_bytes()


@pytest.mark.parametrize("length", [*range(0, len(BLOB) - 1, 7), len(BLOB) - 1, len(BLOB) + 1])
def test_a_blob_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CheckpointError) as caught:
        GridSnapshot.from_bytes((BLOB + b"\0")[:length])
    assert "\n" not in str(caught.value)


HEADER: dict[str, Any] = {
    "num_supernodes": 2,
    "time": 1.5,
    "last_number": 4,
    "faults_seen": {"lose-up": 1},
    "clients": [{"partition_id": 1, "free_at": math.inf, "restarts_until": 2}],
    "held": [],
    "travelling": [],
    "arrived": [],
}


def test_the_format_is_as_described() -> None:
    snapshot = GridSnapshot.from_bytes(pack_state(HEADER, {}))
    assert (snapshot.time, snapshot.last_number) == (1.5, 4)
    assert snapshot.clients == [ClientClock(1, math.inf, 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"time": "1.5"},
        {"time": math.nan},
        {"time": -1.0},
        {"last_number": 4.0},
        {"num_supernodes": 1},
        {"faults_seen": {"lose-up": -1}},
        {"clients": [{"partition_id": 1}]},
        {"held": [{}]},
        {"surprise": 1},
        {"arrived": None},
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="blob 'grid' is not of this engine"):
        GridSnapshot.from_bytes(pack_state(HEADER | change, {}))


HELD = {"start": 2.0, "number": 4, "repeat": 0, "pushed": 1.0, "answers": True}


def test_missing_and_surplus_messages_are_refused() -> None:
    with pytest.raises(CheckpointError, match="0 messages, 1 expected"):
        GridSnapshot.from_bytes(pack_state(HEADER | {"held": [HELD]}, {}))
    surplus = {"message-0": np.zeros(3, np.uint8)}
    with pytest.raises(CheckpointError, match="1 messages, 0 expected"):
        GridSnapshot.from_bytes(pack_state(HEADER, surplus))


def test_a_message_without_content_is_refused() -> None:
    act_as_server()
    proto = message_to_proto(question(1001))
    proto.ClearField("content")
    parts = {"message-0": np.frombuffer(proto.SerializeToString(), np.uint8)}
    with pytest.raises(CheckpointError, match="not of this engine"):
        GridSnapshot.from_bytes(pack_state(HEADER | {"held": [HELD]}, parts))
