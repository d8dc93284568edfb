"""The virtual grid keeps Flower's contract, and time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from fl_opt.exchange.traffic import message_bytes
from fl_opt.simulation.devices import Link, SteadyDevice
from fl_opt.simulation.grid import FIRST_NODE_ID, VirtualGrid
from tests.simulation.apps import (
    answer,
    client_app,
    config_of,
    metrics_of,
    payload,
    payload_of,
    question,
)

A, B, C = range(FIRST_NODE_ID, FIRST_NODE_ID + 3)
DEVICE = SteadyDevice(Link(uplink_mbps=1.0, downlink_mbps=4.0, latency_seconds=0.1), 100.0)


def make_grid(
    function: Callable[[Message, Context], Message] = lambda message, _: answer(message),
    *,
    devices: Callable[[int], SteadyDevice] = lambda _: DEVICE,
    count: int = 3,
) -> VirtualGrid:
    return VirtualGrid(client_app(function), count, devices, run_config={"seed": 3})


def faster(partition_id: int) -> SteadyDevice:
    """Speed grows with the partition id."""
    return SteadyDevice(DEVICE.link, 100.0 * (1 + partition_id))


def sources(replies: list[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


class TestTime:
    def test_reply_arrives_when_the_formula_says(self) -> None:
        grid = make_grid(lambda message, _: answer(message, size=5000, samples=250.0))
        message = question(A, size=20_000)
        (key,) = grid.push_messages([message])
        (reply,) = grid.send_and_receive([question(B, size=20_000)])
        expected = (
            *(0.1 + message_bytes(message) * 8 / 4e6, 250 / 100),
            0.1 + message_bytes(reply) * 8 / 1e6,
        )
        timing = grid.timing_of(reply)
        assert (timing.download, timing.compute, timing.upload) == pytest.approx(expected)
        assert grid.clock.time() == pytest.approx(sum(expected))
        assert len(grid.pull_messages([key])) == 1  # an equal device: it came at the same time

    def test_nothing_comes_before_its_time(self) -> None:
        grid = make_grid()
        keys = grid.push_messages([question(A)])
        assert grid.pull_messages(keys) == []
        grid.clock.sleep(1000.0)  # wakes at the arrival
        arrival = grid.clock.time()
        assert 0.7 < arrival < 0.8
        assert len(grid.pull_messages(keys)) == 1
        assert grid.pull_messages(keys) == []

    def test_order_is_arrival_then_node(self) -> None:
        grid = make_grid(devices=faster)
        assert sources(grid.send_and_receive([question(n) for n in (A, B, C)])) == [C, B, A]
        grid = make_grid()
        assert sources(grid.send_and_receive([question(n) for n in (C, A, B)])) == [A, B, C]

    @pytest.mark.parametrize(
        ("kind", "samples", "seconds"),
        [("train", 50.0, 0.5), ("train", None, 0.1), ("evaluate", None, 0.1 / 3)],
    )
    def test_work(self, kind: str, samples: float | None, seconds: float) -> None:
        grid = make_grid(lambda message, _: answer(message, samples=samples))
        (reply,) = grid.send_and_receive([question(A, kind=kind)])
        assert grid.timing_of(reply).compute == pytest.approx(seconds)

    @pytest.mark.parametrize("samples", [-5.0, math.nan, math.inf])
    def test_absurd_work_is_not_believed(self, samples: float) -> None:
        grid = make_grid(lambda message, _: answer(message, samples=samples))
        (reply,) = grid.send_and_receive([question(A)])
        assert grid.timing_of(reply).compute == pytest.approx(0.1)  # from num-examples

    def test_a_busy_device_queues(self) -> None:
        grid = make_grid()
        first, second = grid.send_and_receive([question(A), question(A)])
        alone = grid.timing_of(first)
        waited = grid.timing_of(second)
        assert alone.queued == 0.0
        assert waited.queued == pytest.approx(alone.total)
        assert grid.clock.time() == pytest.approx(2 * alone.total)

    def test_timeout_leaves_the_late_reply_for_later(self) -> None:
        grid = make_grid(devices=lambda p: faster(p * 50))
        (reply,) = grid.send_and_receive([question(A), question(C)], timeout=0.5)
        assert reply.metadata.src_node_id == C
        assert grid.clock.time() == 0.5

    def test_message_expires(self) -> None:
        handled = []

        def handle(message: Message, context: Context) -> Message:
            handled.append(context.node_id)
            return answer(message)

        grid = make_grid(handle)
        late, lost = grid.send_and_receive([question(A, ttl=0.4), question(B, ttl=0.05)])[::-1]
        assert [r.error.code for r in (late, lost)] == [ErrorCode.MESSAGE_UNAVAILABLE] * 2
        assert "0.4 s" in str(late.error.reason)
        assert grid.clock.time() == 0.4
        assert handled == [A]  # B's message expired before it was there
        (next_reply,) = grid.send_and_receive([question(A)])
        assert grid.timing_of(next_reply).queued == 0.0

    def test_a_device_that_left(self) -> None:
        class Gone(SteadyDevice):
            def upload_seconds(self, num_bytes: int, start: float, /) -> float:
                return math.inf

        grid = make_grid(devices=lambda p: Gone(DEVICE.link, 1.0) if p else DEVICE)
        assert sources(grid.send_and_receive([question(A), question(B)], timeout=60)) == [A]
        assert grid.clock.time() == 60.0


class TestClients:
    def test_context(self) -> None:
        seen: list[Context] = []

        def handle(message: Message, context: Context) -> Message:
            seen.append(context)
            return answer(message)

        make_grid(handle, count=7).send_and_receive([question(C)])
        assert seen[0].node_config == {"partition-id": 2, "num-partitions": 7}
        assert seen[0].run_config == {"seed": 3}
        assert seen[0].node_id == C

    def test_state_lasts_and_is_each_ones_own(self) -> None:
        def count(message: Message, context: Context) -> Message:
            past = context.state.metric_records.get("calls", MetricRecord({"n": 0.0}))
            count = float(past["n"]) + 1.0  # type: ignore[arg-type]
            context.state["calls"] = MetricRecord({"n": count})
            return answer(message, samples=count)

        grid = make_grid(count)
        rounds = [(A, B), (A,), (A, B)]
        replies = [grid.send_and_receive([question(n) for n in nodes]) for nodes in rounds]
        counts = [
            {r.metadata.src_node_id: metrics_of(r.content)["num-samples"] for r in some}
            for some in replies
        ]
        assert counts == [{A: 1.0, B: 1.0}, {A: 2.0}, {A: 3.0, B: 2.0}]

    def test_a_client_that_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        def handle(message: Message, context: Context) -> Message:
            if context.node_id == B:
                raise ZeroDivisionError("no data")
            return answer(message)

        grid = make_grid(handle)
        with caplog.at_level(logging.WARNING):
            replies = grid.send_and_receive([question(n) for n in (A, B, C)])
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        assert by_node[B].error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        assert "no data" in str(by_node[B].error.reason)
        assert by_node[A].has_content()
        assert by_node[C].has_content()
        (record,) = caplog.records
        assert record.getMessage() == (
            f"client {B} (partition 1) raised ZeroDivisionError: no data"
        )

    def test_a_failed_message_leaves_the_state_alone(self) -> None:
        states: list[list[str]] = []

        def handle(message: Message, context: Context) -> Message:
            states.append(list(context.state))
            context.state[f"call-{len(states)}"] = ConfigRecord()
            if len(states) == 2:
                raise RuntimeError
            return answer(message)

        grid = make_grid(handle)
        for _ in range(3):
            grid.send_and_receive([question(A)])
        assert states == [[], ["call-1"], ["call-1"]]

    @pytest.mark.parametrize("wrong", [None, "foreign"])
    def test_what_is_no_reply_is_an_error(self, wrong: str | None) -> None:
        def handle(message: Message, context: Context) -> Message:
            return None if wrong is None else question(A)  # type: ignore[return-value]

        (reply,) = make_grid(handle).send_and_receive([question(A)])
        assert reply.has_error()

    def test_records_are_not_shared(self) -> None:
        kept: dict[str, RecordDict] = {}

        def vandal(message: Message, context: Context) -> Message:
            content = message.content
            assert list(content) == ["arrays", "config"]
            numbers = config_of(content)["list"]
            assert numbers == [1, 2]
            numbers.append(3)  # type: ignore[arg-type]
            assert payload_of(content).data == bytes(1000)
            payload_of(content).data = b"overwritten"
            del content["config"]
            reply = answer(message)
            kept["reply"] = reply.content
            context.state["kept"] = metrics_of(reply.content)
            return reply

        grid = make_grid(vandal)
        shared = question(A)
        messages = [shared, Message(shared.content, B, "train")]
        before = message_bytes(shared)
        first, second = grid.send_and_receive(messages)
        assert config_of(shared.content)["list"] == [1, 2]
        assert message_bytes(shared) == before
        metrics_of(kept["reply"])["num-examples"] = 10**9
        assert metrics_of(second.content)["num-examples"] == 10
        second.content["arrays"] = ArrayRecord({"x": payload(b"")})
        assert list(kept["reply"].array_records["arrays"]) == ["payload"]
        assert first.content is not second.content


class TestContract:
    def test_nodes(self) -> None:
        assert make_grid(count=3).get_node_ids() == [A, B, C]
        assert [info.node_id for info in make_grid(count=2).get_nodes()] == [A, B]

    def test_unknown_node_is_refused_like_in_flower(self) -> None:
        grid = make_grid()
        keys = grid.push_messages([question(C + 1), question(A), question(1)])
        assert [key is None for key in keys] == [True, False, True]
        assert sources(grid.send_and_receive([question(99), question(B)])) == [B]

    def test_ids_are_unique_and_as_long_as_flowers(self) -> None:
        grid = make_grid()
        keys = grid.push_messages([question(n) for n in (A, B, C)] * 2)
        grid.clock.sleep(100.0)
        grid.clock.sleep(100.0)
        replies = grid.pull_messages(keys)
        ids = {*keys, *(reply.metadata.message_id for reply in replies)}
        assert len(ids) == 12
        assert {len(one) for one in ids} == {64}
        assert {r.metadata.reply_to_message_id for r in replies} == set(keys)

    def test_pulls_only_what_is_asked_for(self) -> None:
        grid = make_grid()
        first, second = grid.push_messages([question(A), question(B)])
        grid.clock.sleep(10.0)
        assert sources(grid.pull_messages([second, "unknown"])) == [B]
        assert sources(grid.pull_messages(iter([first]))) == [A]

    def test_create_message_and_run(self) -> None:
        grid = make_grid()
        message = grid.create_message(RecordDict(), "query", A, "7", ttl=5.0)
        assert message.metadata.run_id == grid.run.run_id
        assert (message.metadata.group_id, message.metadata.ttl) == ("7", 5.0)

    def test_a_repeated_run_is_the_same(self) -> None:
        def history() -> list[tuple[float, int, int]]:
            grid = make_grid(devices=faster, count=3)
            seen = []
            for size in (10, 5000, 100):
                keys = set(grid.push_messages([question(n, size=size) for n in (A, B, C)]))
                while keys:
                    grid.clock.sleep(1.0)
                    for reply in grid.pull_messages(keys):
                        keys.discard(reply.metadata.reply_to_message_id)
                        node = reply.metadata.src_node_id
                        seen.append((grid.clock.time(), node, message_bytes(reply)))
            return seen

        assert history() == history()

    def test_thousands_of_clients_cost_little(self) -> None:
        made = []

        def devices(partition_id: int) -> SteadyDevice:
            made.append(partition_id)
            return DEVICE

        grid = make_grid(devices=devices, count=10_000)
        chosen = grid.get_node_ids()[::2500]
        assert sources(grid.send_and_receive([question(n) for n in chosen])) == chosen
        assert made == [0, 2500, 5000, 7500]
