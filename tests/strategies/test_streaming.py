"""Replies are handed on as they arrive, from any Grid, under a clock that nobody waits for."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.simulation.clock import VirtualClock
from fl_opt.simulation.identity import act_as_server
from strategies.polling import LONGEST_WAIT
from strategies.streaming import Sent, StreamingGrid


class SteppingClock:
    """Time that moves by exactly what is slept, and remembers the sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert len(self.sleeps) < 10_000, "waits for ever"
        self.sleeps.append(seconds)
        self.now += seconds


class ScriptedGrid(Grid):
    """Answers a message to node n at ``arrivals[n]``; a node without arrival is silent."""

    def __init__(self, arrivals: dict[int, float], refused: Iterable[int] = ()) -> None:
        act_as_server()
        self.clock = SteppingClock()
        self.arrivals = arrivals
        self.refused = set(refused)
        self.pulls = 0
        self.fails = False
        self.asked: dict[str, Message] = {}
        self.extra = "something only this grid has"

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        assert isinstance(messages, list), "Flower's HttpGrid goes through messages twice"
        keys: list[str] = []
        for message in messages:
            node_id = message.metadata.dst_node_id
            if node_id in self.refused:
                keys.append(None)  # type: ignore[arg-type]
                continue
            key = f"message-{node_id}"
            message.metadata.__dict__["_message_id"] = key
            self.asked[key] = message
            keys.append(key)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.pulls += 1
        due = [
            message
            for key in message_ids
            if (message := self.asked.get(key)) is not None
            and self.arrivals.get(message.metadata.dst_node_id, 1e9) <= self.clock.now
        ]
        due.sort(key=lambda message: self.arrivals[message.metadata.dst_node_id])
        for message in due:
            del self.asked[message.metadata.message_id]
        content = Error(0, "no reply in time") if self.fails else RecordDict()
        return [Message(content, reply_to=message) for message in due]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        raise AssertionError("the wrapper polls by itself")

    def get_node_ids(self) -> list[int]:
        return sorted(self.arrivals)

    def set_run(self, run: Run) -> None:
        self.the_run = run

    @property
    def run(self) -> Run:
        return self.the_run

    def create_message(  # type: ignore[override]
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str
    ) -> Message:
        raise NotImplementedError


def messages_to(*nodes: int, kind: str = "train") -> list[Message]:
    return [Message(RecordDict(), node, kind) for node in nodes]


def test_pushes_before_anybody_iterates() -> None:
    grid = ScriptedGrid({2: 1.0, 3: 0.0})
    stream = StreamingGrid(grid).send_and_receive(message for message in messages_to(2, 3))
    assert set(grid.asked) == {"message-2", "message-3"}
    assert grid.pulls == 0
    assert (stream.expected, stream.received, stream.missing) == (2, 0, 2)


def test_hands_on_each_reply_while_others_are_missing() -> None:
    grid = ScriptedGrid({2: 3.0, 3: 0.0, 4: 1.0})
    stream = StreamingGrid(grid).send_and_receive(messages_to(2, 3, 4))
    seen = [(reply.metadata.src_node_id, stream.received, stream.missing) for reply in stream]
    assert seen == [(3, 1, 2), (4, 2, 1), (2, 3, 0)]
    assert grid.clock.now == pytest.approx(3.0, abs=LONGEST_WAIT)


def test_stops_without_a_pull_when_nothing_was_sent() -> None:
    grid = ScriptedGrid({})
    assert list(StreamingGrid(grid).send_and_receive([], timeout=5.0)) == []
    assert (grid.pulls, grid.clock.now) == (0, 0.0)


def test_ends_at_the_timeout_with_what_has_come() -> None:
    grid = ScriptedGrid({2: 0.2, 3: 7.0, 4: 8.0})
    stream = StreamingGrid(grid).send_and_receive(messages_to(2, 3, 4), timeout=2.5)
    assert [reply.metadata.src_node_id for reply in stream] == [2]
    assert grid.clock.now == pytest.approx(2.5)
    assert (stream.expected, stream.received, stream.missing) == (3, 1, 2)
    assert next(stream, None) is None


def test_a_reply_at_the_very_end_still_counts() -> None:
    grid = ScriptedGrid({2: 2.5})
    assert len(list(StreamingGrid(grid).send_and_receive(messages_to(2), timeout=2.5))) == 1


def test_the_timeout_runs_from_sending_on() -> None:
    grid = ScriptedGrid({2: 0.0, 3: 9.0})
    stream = StreamingGrid(grid).send_and_receive(messages_to(2, 3), timeout=4.0)
    next(stream)
    grid.clock.now = 3.5  # the caller was busy with the first reply
    assert list(stream) == []
    assert grid.clock.now == pytest.approx(4.0)


def test_looks_when_a_reply_is_due() -> None:
    """Once it is known how long a node takes, a later round has few looks and no delay."""
    grid = ScriptedGrid({2: 20.0})
    streaming = StreamingGrid(grid)
    list(streaming.send_and_receive(messages_to(2)))
    for _ in range(11):
        begin = grid.clock.now
        grid.arrivals[2] = begin + 20.0
        grid.pulls = 0
        list(streaming.send_and_receive(messages_to(2)))
    assert grid.clock.now - begin == pytest.approx(20.0, abs=0.5)
    assert grid.pulls < 40


def test_an_error_in_place_of_a_reply_teaches_nothing() -> None:
    """A SuperLink makes one for a message that nobody has answered in time."""
    grid = ScriptedGrid({2: 20.0})
    streaming = StreamingGrid(grid)
    for seconds in (*[20.0] * 8, 5000.0, 20.0):
        begin = grid.clock.now
        grid.pulls = 0
        grid.arrivals[2] = begin + seconds
        grid.fails = seconds > 20.0
        list(streaming.send_and_receive(messages_to(2)))
    assert grid.clock.now - begin == pytest.approx(20.0, abs=0.5)
    assert grid.pulls < 40


def test_refused_messages_are_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    grid = ScriptedGrid({2: 0.0, 3: 0.0}, refused=[3])
    with caplog.at_level(logging.WARNING):
        stream = StreamingGrid(grid).send_and_receive(messages_to(2, 3))
    assert len(list(stream)) == stream.expected == 1
    assert "1 of 2 messages were refused" in caplog.text


def test_a_reply_is_handed_on_once() -> None:
    grid = ScriptedGrid({2: 0.0, 3: 1.0})
    pull = grid.pull_messages
    grid.pull_messages = lambda message_ids: pull(message_ids) * 2  # type: ignore[method-assign]
    assert len(list(StreamingGrid(grid).send_and_receive(messages_to(2, 3)))) == 2


def test_further_messages_share_the_deadline() -> None:
    grid = ScriptedGrid({2: 0.0, 3: 1.0, 4: 9.0})
    stream = StreamingGrid(grid).send_and_receive(messages_to(2), timeout=3.0)
    next(stream)
    stream.push(messages_to(3, 4))
    assert (stream.expected, stream.missing) == (3, 2)
    assert [reply.metadata.src_node_id for reply in stream] == [3]
    assert grid.clock.now == pytest.approx(3.0)
    assert stream.missing == 1


def test_a_message_pushed_on_the_last_reply_is_waited_for() -> None:
    grid = ScriptedGrid({2: 0.0, 3: 1.0})
    stream = StreamingGrid(grid).send_and_receive(messages_to(2))
    seen = []
    for reply in stream:
        seen.append(reply.metadata.src_node_id)
        if len(seen) == 1:
            stream.push(messages_to(3))
    assert seen == [2, 3]


def test_late_replies_turn_up_in_a_later_stream_once() -> None:
    grid = ScriptedGrid({2: 0.0, 3: 4.0, 4: 6.0, 5: 50.0})
    streaming = StreamingGrid(grid)
    first = streaming.send_and_receive(messages_to(2, 3), timeout=2.0)
    assert [reply.metadata.src_node_id for reply in first] == [2]
    assert streaming.late == {"message-3": Sent(3, 0.0)}
    assert streaming.busy == {3}
    second = streaming.send_and_receive(messages_to(4), timeout=20.0)
    assert [reply.metadata.src_node_id for reply in second] == [3, 4]
    assert (second.expected, second.received, streaming.late) == (1, 2, {})


def test_an_evaluation_leaves_late_updates_to_the_next_training() -> None:
    grid = ScriptedGrid({2: 4.0, 3: 6.0, 4: 30.0, 5: 40.0})
    streaming = StreamingGrid(grid)
    assert list(streaming.send_and_receive(messages_to(2), timeout=2.0)) == []
    evaluated = streaming.send_and_receive(messages_to(3, 4, kind="evaluate"), timeout=20.0)
    assert [reply.metadata.src_node_id for reply in evaluated] == [3]
    assert streaming.busy == {2}
    trained = streaming.send_and_receive(messages_to(5))
    assert [reply.metadata.src_node_id for reply in trained] == [2, 5]


def test_nobody_waits_for_late_replies_alone() -> None:
    grid = ScriptedGrid({2: 9.0, 3: 2.0})
    streaming = StreamingGrid(grid)
    assert list(streaming.send_and_receive(messages_to(2), timeout=1.0)) == []
    assert len(list(streaming.send_and_receive(messages_to(3)))) == 1
    assert grid.clock.now == pytest.approx(2.0, abs=LONGEST_WAIT)
    assert streaming.busy == {2}


def test_messages_of_a_server_that_was_cut_off_can_be_added() -> None:
    grid = ScriptedGrid({2: 0.0, 3: 1.0})
    keys = grid.push_messages(messages_to(2))
    streaming = StreamingGrid(grid)
    streaming.late |= {key: Sent(2, 0.0) for key in keys}
    stream = streaming.send_and_receive(messages_to(3))
    assert [stream.node_of(reply) for reply in stream] == [2, 3]


def test_a_closed_stream_leaves_the_others_to_the_next_one() -> None:
    """Also what was there already: replies 3 and 4 arrive at the same moment."""
    grid = ScriptedGrid({2: 1.0, 3: 2.0, 4: 2.0, 5: 3.0})
    streaming = StreamingGrid(grid)
    first = streaming.send_and_receive(messages_to(2, 3, 4))
    seen, third = (next(first).metadata.src_node_id for _ in range(2))
    first.close()
    (left,) = {3, 4} - {third}
    assert (seen, list(first), streaming.busy) == (2, [], {left})
    second = streaming.send_and_receive(messages_to(5))
    assert second.busy == {left, 5}
    expected = [(True, left), (False, 5)]
    assert [(second.is_late(reply), second.node_of(reply)) for reply in second] == expected
    assert (streaming.busy, first.missing, len(streaming.pulled)) == (set(), 1, 0)


def test_a_stream_may_wait_for_late_replies_alone() -> None:
    grid = ScriptedGrid({2: 9.0, 3: 20.0})
    streaming = StreamingGrid(grid)
    assert list(streaming.send_and_receive(messages_to(2, 3), timeout=1.0)) == []
    stream = streaming.send_and_receive([], timeout=10.0)
    stream.waits_for_late = True
    (reply,) = stream
    assert stream.seconds_of(reply) == pytest.approx(9.0, abs=3 * LONGEST_WAIT)
    assert grid.clock.now == pytest.approx(11.0)
    assert streaming.busy == {3}


def test_the_node_is_the_one_that_was_asked() -> None:
    """An error that a SuperLink makes in its place is from the SuperLink."""
    grid = ScriptedGrid({2: 0.0, 3: 0.0})
    stream = StreamingGrid(grid).send_and_receive(messages_to(2))
    reply = next(stream)
    reply.metadata.__dict__["_src_node_id"] = 1
    assert stream.node_of(reply) == 2
    (other,) = messages_to(3)
    other.metadata.__dict__["_message_id"] = "never sent"
    assert stream.node_of(Message(RecordDict(), reply_to=other)) == 3


@given(arrivals=st.dictionaries(st.integers(2, 40), st.floats(0.0, 30.0), max_size=20))
def test_every_reply_comes_once_and_in_order(arrivals: dict[int, float]) -> None:
    grid = ScriptedGrid(arrivals)
    seen = []
    for reply in StreamingGrid(grid).send_and_receive(messages_to(*arrivals)):
        node = reply.metadata.src_node_id
        assert 0.0 <= grid.clock.now - arrivals[node] <= LONGEST_WAIT
        seen.append(node)
    assert sorted(seen) == sorted(arrivals)
    assert [arrivals[node] for node in seen] == sorted(arrivals.values())


def test_everything_else_is_the_inner_grids() -> None:
    inner = ScriptedGrid({2: 0.0})
    grid = StreamingGrid(inner)
    run = Run.create_empty(5)
    grid.set_run(run)
    assert grid.run is run
    assert grid.get_node_ids() == [2]
    assert [info.node_id for info in grid.get_nodes()] == [2]
    assert grid.extra == "something only this grid has"
    assert grid.clock is inner.clock
    with pytest.raises(AttributeError, match="timing_of"):
        grid.timing_of  # noqa: B018
    keys = grid.push_messages(messages_to(2))
    assert len(list(grid.pull_messages(keys))) == 1


def test_uses_real_time_where_the_grid_has_no_clock() -> None:
    grid = ScriptedGrid({2: 0.0})
    clock, inner = grid.clock, ScriptedGrid.__new__(ScriptedGrid)
    inner.__dict__ = {**grid.__dict__}
    del inner.__dict__["clock"]
    assert StreamingGrid(inner).clock is not clock
    assert not isinstance(StreamingGrid(inner).clock, VirtualClock)
