"""A reply that never comes whole holds up nobody but its own sender."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, cast

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl_opt.simulation.identity import act_as_server
from strategies.pulling import Pulling
from strategies.streaming import StreamingGrid

SOON = 0.2  # seconds


class SlowGrid:
    """Has replies to all messages, and is held up by those whose upload has not ended."""

    def __init__(self, stuck: Iterable[str] = ()) -> None:
        self.stuck = set(stuck)
        self.whole = threading.Event()
        self.looks = 0
        self.taken: set[str] = set()
        self._lock = threading.Lock()
        self._sent: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        keys = []
        for message in messages:
            key = f"message {message.metadata.dst_node_id}"
            self._sent[key] = message
            keys.append(key)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        with self._lock:
            self.looks += 1
            asked = sorted(message_ids)
            twice = self.taken & set(asked)
            self.taken |= set(asked)
        assert not twice  # a SuperLink would say that there is no such message
        if self.stuck & set(asked):
            self.whole.wait()
        return [self._reply(key) for key in asked]

    def _reply(self, key: str) -> Message:
        message = Message(RecordDict(), dst_node_id=1, message_type="train")
        message.metadata.__dict__["_reply_to_message_id"] = key
        return message


def ids(replies: Iterable[Message]) -> list[str]:
    return [reply.metadata.reply_to_message_id for reply in replies]


@pytest.fixture(autouse=True)
def server() -> None:
    act_as_server()


def test_others_come_at_once_and_what_was_held_up_when_it_is_whole() -> None:
    grid = SlowGrid(stuck=["b"])
    pulling = Pulling(cast(Grid, grid))
    began = time.monotonic()
    assert pulling.pull(["a", "b"], grace=SOON) == []
    assert ids(pulling.pull(["a", "b", "c"], grace=5.0)) == ["c"]
    assert pulling.pull(["a", "b"], grace=SOON) == []
    assert time.monotonic() - began < 5.0
    grid.whole.set()
    found: list[str] = []
    while not found:
        found = ids(pulling.pull(["a", "b"], grace=SOON))
    assert found == ["a", "b"]
    assert pulling.pull([], grace=SOON) == []


def test_an_error_of_the_grid_is_raised() -> None:
    class Broken(SlowGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        Pulling(cast(Grid, Broken())).pull(["a"], grace=5.0)


def test_a_round_ends_in_time_whatever_is_stuck() -> None:
    grid = SlowGrid(stuck=["message 2"])
    streaming = StreamingGrid(cast(Any, grid))
    messages = [Message(RecordDict(), dst_node_id=n, message_type="train") for n in (1, 2)]
    began = time.monotonic()
    stream = streaming.send_and_receive(messages, timeout=2.0)
    got = ids(stream)
    assert time.monotonic() - began < 30.0
    assert stream.missing == 2 - len(got)
    assert "message 2" not in got
    grid.whole.set()
    # The next stream gets what was held up, as late.
    again = streaming.send_and_receive(
        [Message(RecordDict(), dst_node_id=3, message_type="train")], timeout=60.0
    )
    again.waits_for_late = True
    late = {reply.metadata.reply_to_message_id: again.is_late(reply) for reply in again}
    assert late["message 2"]
    assert not late["message 3"]
