"""Byte counts agree with Flower's own serialisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.exchange.traffic import message_bytes, payload_bytes
from fl_opt.simulation.identity import act_as_server


@pytest.fixture(autouse=True)
def _identity() -> None:
    act_as_server()


def _serialised(message: Message) -> int:
    """What Flower would send: every distinct object, deflated."""
    return sum(len(item.deflate()) for item in get_all_nested_objects(message).values())


def _payload(data: bytes) -> Array:
    return Array("uint8", (len(data),), "fl_opt/1", data)


def _message(**records: ArrayRecord | MetricRecord | ConfigRecord) -> Message:
    return Message(RecordDict(dict(records)), 5, "train", group_id="3")


@given(sizes=st.lists(st.integers(0, 1200), max_size=4), copies=st.integers(1, 2))
def test_counts_what_flower_serialises(sizes: list[int], copies: int) -> None:
    arrays = {
        f"{copy}.{index}": _payload(bytes([index]) * size)
        for index, size in enumerate(sizes)
        for copy in range(copies)  # equal arrays are sent once
    }
    message = _message(arrays=ArrayRecord(arrays), config=ConfigRecord({"server-round": 7}))
    assert message_bytes(message) == _serialised(message)
    assert payload_bytes(message) == copies * sum(sizes)


def test_data_of_several_chunks() -> None:
    data = np.arange(6 << 20, dtype=np.uint32).tobytes()  # 24 MiB
    message = _message(arrays=ArrayRecord({"payload": _payload(data)}))
    assert len(message.content.array_records["arrays"]["payload"].children) > 1
    assert message_bytes(message) == _serialised(message)


def test_replies_and_errors() -> None:
    question = _message(config=ConfigRecord())
    question.metadata.__dict__["_message_id"] = "a" * 64
    reply = Message(
        RecordDict({"metrics": MetricRecord({"num-examples": 3, "train-loss": 0.5})}),
        reply_to=question,
    )
    failure = Message(Error(code=2, reason="out of memory"), reply_to=question)
    assert message_bytes(reply) == _serialised(reply)
    assert message_bytes(failure) == _serialised(failure)
    assert payload_bytes(reply) == payload_bytes(failure) == 0


def test_a_changed_content_is_counted_anew() -> None:
    message = _message(arrays=ArrayRecord({"payload": _payload(b"x" * 100)}))
    before = message_bytes(message)
    message.content.array_records["arrays"]["payload"] = _payload(b"x" * 190)
    assert message_bytes(message) == before + 90


def test_one_content_for_many_messages_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    content = RecordDict({"arrays": ArrayRecord({"payload": _payload(bytes(5 << 20))})})
    messages = [Message(content, node, "train") for node in range(1, 6)]
    assert content.array_records["arrays"]["payload"].object_id
    monkeypatch.setattr(ArrayChunk, "deflate", _refuse_large(ArrayChunk.deflate))
    assert len({message_bytes(message) for message in messages}) == 1


def _refuse_large(deflate: Callable[[ArrayChunk], bytes]) -> Callable[[ArrayChunk], bytes]:
    def checked(chunk: ArrayChunk) -> bytes:
        assert len(chunk.data) == 0, "the data of a chunk was serialised again"
        return deflate(chunk)

    return checked
