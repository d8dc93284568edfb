"""Each fault alone, as an app and its server see it."""

from __future__ import annotations

import itertools

import pytest
from flwr.app import Context, Message
from flwr.common.constant import ErrorCode

from fl_opt.exchange.traffic import message_bytes
from fl_opt.simulation.engines import run_virtual
from fl_opt.simulation.faults import DOWN, UP, FaultPlan
from fl_opt.simulation.grid import FIRST_NODE_ID, VirtualGrid
from tests.simulation.apps import client_app, config_of, payload_of, server_app
from tests.simulation.counting import (
    DEVICE,
    TTL,
    A,
    B,
    Counting,
    all_faults,
    ask,
    count_in,
    grid_with,
    pull_all,
)


def test_no_faults_change_nothing() -> None:
    def history(faults: FaultPlan | None) -> list[object]:
        grid = grid_with(Counting(), faults)
        keys = grid.push_messages([ask(n) for n in (A, B, A)])
        replies = pull_all(grid, keys)
        assert not grid.faults_seen
        return [(grid.timing_of(reply), count_in(reply)) for reply in replies]

    assert history(None) == history(FaultPlan(seed=3))


class TestLosses:
    def test_down_the_client_never_hears_of_it(self) -> None:
        app = Counting()
        grid = grid_with(app, FaultPlan(lose_down=1.0))
        assert grid.send_and_receive([ask(A)], timeout=400.0) == []
        (reply,) = grid.send_and_receive([ask(B)])
        assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
        assert grid.clock.time() == 400.0 + TTL
        assert app.seen == []
        assert grid.faults_seen == {"lose-down": 2}
        assert set(grid.save()) == {"grid"}  # nobody ran

    def test_up_the_client_has_handled_it(self) -> None:
        app = Counting()
        grid = grid_with(app, FaultPlan(lose_up=1.0))
        replies = grid.send_and_receive([ask(A), ask(A)])
        assert [reply.has_error() for reply in replies] == [True, True]
        assert grid.clock.time() == TTL
        assert len(app.seen) == 2
        assert grid.faults_seen == {"lose-up": 2}

    def test_a_client_keeps_what_it_learned_when_its_reply_is_lost(self) -> None:
        plan = FaultPlan(seed=1, lose_up=0.5)
        grid = grid_with(Counting(), plan)
        counts = [count_in(grid.send_and_receive([ask(A)])[0]) for _ in range(8)]
        lost = [plan.happens("lose-up", A, number) for number in range(1, 9)]
        assert {True, False} == set(lost)
        assert counts == [None if gone else n for n, gone in enumerate(lost, 1)]


class TestDuplicates:
    def test_down_is_handled_twice_and_answered_once(self) -> None:
        app = Counting()
        grid = grid_with(app, FaultPlan(seed=2, duplicate_down=1.0), count=20)
        replies = grid.send_and_receive([ask(n) for n in grid.get_node_ids()])
        assert len(replies) == 20
        assert len(app.seen) == 40
        assert len(set(app.seen)) == 20
        assert {count_in(reply) for reply in replies} == {1, 2}
        assert grid.faults_seen == {"duplicate-down": 20}
        again = grid.send_and_receive([ask(A)])
        assert count_in(again[0]) in (3, 4)

    def test_the_second_copy_keeps_the_device_busy(self) -> None:
        grid = grid_with(Counting(), FaultPlan(duplicate_down=1.0), count=20)
        replies = grid.send_and_receive([ask(n) for n in grid.get_node_ids()])
        queued = {count_in(reply): grid.timing_of(reply).queued for reply in replies}
        assert queued[1] == 0.0
        assert queued[2] == pytest.approx(
            next(grid.timing_of(reply).total for reply in replies if count_in(reply) == 1)
        )

    def test_up_arrives_twice(self) -> None:
        grid = grid_with(Counting(), FaultPlan(duplicate_up=1.0))
        keys = grid.push_messages([ask(A), ask(B)])
        replies = pull_all(grid, keys)
        assert [reply.metadata.src_node_id for reply in replies] == [A, A, B, B]
        first, second = replies[:2]
        assert first is not second
        assert first.metadata == second.metadata
        assert first.content == second.content
        del first.content["arrays"]
        assert "arrays" in second.content
        assert grid.timing_of(first) == grid.timing_of(second)
        assert grid.faults_seen == {"duplicate-up": 2}

    def test_a_second_copy_that_is_late_can_be_pulled_later(self) -> None:
        plan = FaultPlan(seed=1, duplicate_up=1.0, delay=1.0)
        grid = grid_with(Counting(), plan)
        (key,) = grid.push_messages([ask(A)])
        times: list[float] = []
        while len(times) < 2:
            grid.clock.sleep(TTL)
            times += [grid.clock.time() for _ in grid.pull_messages([key])]
        assert times[0] < times[1]


class TestDelays:
    PLAN = FaultPlan(seed=4, delay=0.5, delay_seconds=20.0)

    def test_messages_overtake_each_other_both_ways(self) -> None:
        app = Counting()
        grid = grid_with(app, self.PLAN)
        keys = grid.push_messages([ask(A) for _ in range(12)])
        replies = pull_all(grid, keys)
        handled = [key for _, key in app.seen]
        answered = [reply.metadata.reply_to_message_id for reply in replies]
        assert set(handled) == set(answered) == set(keys)
        assert keys != handled != answered != keys
        # What a client remembers follows the order in which it handled the messages.
        counts = {r.metadata.reply_to_message_id: count_in(r) for r in replies}
        assert [counts[key] for key in handled] == list(range(1, 13))
        assert 6 <= grid.faults_seen["delay"] <= 18

    def test_timing_tells_the_delay_and_the_arrival(self) -> None:
        grid = grid_with(Counting(), self.PLAN)
        (key,) = grid.push_messages([ask(A)])
        down, up = (self.PLAN.extra_seconds(A, 1, 0, way) for way in (DOWN, UP))
        while not (replies := grid.pull_messages([key])):
            grid.clock.sleep(TTL)
        timing = grid.timing_of(replies[0])
        plain = grid_with(Counting(), None)
        usual = plain.timing_of(plain.send_and_receive([ask(A)])[0])
        assert down > 0.0
        assert up > 0.0
        assert timing.download == pytest.approx(usual.download + down)
        assert timing.upload == pytest.approx(usual.upload + up)
        assert timing.total == pytest.approx(grid.clock.time())

    def test_a_late_message_is_what_was_sent(self) -> None:
        app = Counting()
        grid = grid_with(app, FaultPlan(delay=1.0))
        message = ask(A)
        grid.push_messages([message])
        config_of(message.content)["list"] = [9]
        assert app.seen == []
        pull_all(grid, [])
        assert app.numbers == [[1, 2]]

    def test_later_than_its_time_to_live(self) -> None:
        app = Counting()
        grid = grid_with(app, FaultPlan(seed=1, delay=1.0, delay_seconds=1e6))
        replies = grid.send_and_receive([ask(A), ask(B)])
        assert all(reply.has_error() for reply in replies)
        assert grid.clock.time() == TTL
        assert app.seen == []

    def test_both_copies_late(self) -> None:
        """On the way up, where the client has handled the message, and on the way down."""
        for seed in range(40):
            app = Counting()
            plan = FaultPlan(
                seed, delay=0.5, delay_seconds=1e6, duplicate_down=1.0, duplicate_up=1.0
            )
            grid = grid_with(app, plan)
            replies = pull_all(grid, grid.push_messages([ask(A)]))
            handled = [plan.extra_seconds(A, 1, copy, DOWN) < TTL - 9 for copy in (0, 1)]
            assert len(app.seen) == sum(handled)
            back = [plan.extra_seconds(A, 1, copy, UP) < TTL - 9 for copy in (0, 1)]
            if handled[plan.answering_copy(A, 1)] and any(back):
                assert len(replies) == sum(back)
                assert all(reply.has_content() for reply in replies)
            else:
                assert [reply.has_error() for reply in replies] == [True]
                assert grid.clock.time() == TTL


class TestClients:
    def test_restarts_count_in_rounds_without_a_question(self) -> None:
        plan = FaultPlan(seed=6, restart=0.1)
        grid = grid_with(Counting(), plan, count=60)
        nodes = grid.get_node_ids()
        grid.send_and_receive([ask(n, 3) for n in nodes])
        replies = grid.send_and_receive([ask(n, 9) for n in nodes])
        forgot = {r.metadata.src_node_id for r in replies if count_in(r) == 1}
        assert forgot == {n for n in nodes if plan.restarts(n, after=3, until=9)}
        assert 10 < len(forgot) < 50
        # 1 - 0.9^6 = 0.47 of 60 clients; those that had nothing to lose were not counted
        assert grid.faults_seen == {"restart": len(forgot)}
        again = grid.send_and_receive([ask(n, 9) for n in nodes])
        assert {count_in(reply) for reply in again} == {2, 3}  # once in a round

    def test_an_old_message_brings_no_old_restart_back(self) -> None:
        grid = grid_with(Counting(), FaultPlan(restart=1.0))
        counts = [count_in(grid.send_and_receive([ask(A, r)])[0]) for r in (5, 5, 3, 5, 6)]
        assert counts == [1, 2, 3, 4, 1]

    @pytest.mark.parametrize("group", ["", "warm-up", "-3", "1.5", "9" * 5000])
    def test_a_message_outside_of_rounds(self, group: str) -> None:
        grid = grid_with(Counting(), FaultPlan(restart=1.0))
        counts = [count_in(grid.send_and_receive([ask(A, group)])[0]) for _ in range(2)]
        assert counts == [1, 2]

    def test_forget(self) -> None:
        grid = grid_with(Counting(), FaultPlan(forget=1.0))
        counts = [count_in(grid.send_and_receive([ask(A)])[0]) for _ in range(3)]
        assert counts == [1, 1, 1]
        assert grid.faults_seen == {"forget": 3}

    def test_slow(self) -> None:
        grid = grid_with(Counting(), FaultPlan(slow=1.0, slow_factor=7.0))
        (reply,) = grid.send_and_receive([ask(A)])
        timing = grid.timing_of(reply)
        assert timing.compute == pytest.approx(7 * 50 / 100)
        assert grid.clock.time() == pytest.approx(timing.total)
        assert grid.faults_seen == {"slow": 1}


class TestCorruption:
    def test_down(self) -> None:
        app = Counting()
        grid = grid_with(app, FaultPlan(corrupt_down=1.0))
        message = ask(A)
        grid.send_and_receive([message, Message(message.content, B, "train")])
        assert [sum(map(bool, data)) for data in app.payloads] == [1, 1]
        assert app.payloads[0] != app.payloads[1]
        assert payload_of(message.content).data == bytes(1000)
        assert grid.faults_seen == {"corrupt-down": 2}

    def test_up(self) -> None:
        grid = grid_with(Counting(), FaultPlan(corrupt_up=1.0, duplicate_up=1.0))
        replies = pull_all(grid, grid.push_messages([ask(A)]))
        data = [payload_of(reply.content).data for reply in replies]
        assert [sum(map(bool, one)) for one in data] == [1, 1]
        assert data[0] != data[1]
        assert {message_bytes(reply) for reply in replies} == {message_bytes(replies[0])}
        assert grid.faults_seen == {"corrupt-up": 2, "duplicate-up": 1}


def test_all_at_once_repeats_bit_for_bit() -> None:
    def history(seed: int) -> list[object]:
        plan = all_faults(seed)
        grid = grid_with(Counting(), plan, count=8)
        keys: list[str] = []
        log: list[object] = []
        for server_round in range(1, 6):
            keys += grid.push_messages([ask(n, server_round) for n in grid.get_node_ids()])
            for reply in pull_all(grid, keys, until=10.0 * server_round):
                data = payload_of(reply.content).data if reply.has_content() else b""
                place = (reply.metadata.reply_to_message_id, grid.timing_of(reply))
                log.append((*place, count_in(reply), data))
        assert len(grid.faults_seen) == 10, grid.faults_seen
        return [*log, dict(grid.faults_seen)]

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_the_engine_takes_a_plan() -> None:
    replies: list[Message] = []

    def serve(grid: VirtualGrid, context: Context) -> None:
        replies.extend(grid.send_and_receive([ask(FIRST_NODE_ID)]))

    run_virtual(
        server_app(serve),  # type: ignore[arg-type]
        client_app(Counting()),
        {},
        1,
        lambda _: DEVICE,
        faults=FaultPlan(lose_down=1.0),
    )
    assert [reply.error.code for reply in replies] == [ErrorCode.MESSAGE_UNAVAILABLE]


def test_rates_of_a_whole_run() -> None:
    plan = FaultPlan(8, lose_down=0.2, lose_up=0.2, duplicate_up=0.2, slow=0.2)
    grid = grid_with(Counting(), plan, count=50)
    messages = [ask(n, r) for r, n in itertools.product(range(8), grid.get_node_ids())]
    grid.push_messages(messages)
    assert 50 < grid.faults_seen["lose-down"] < 110  # 80 of 400
    assert 40 < grid.faults_seen["lose-up"] < 90  # 64 of the other 320
    assert 30 < grid.faults_seen["duplicate-up"] < 75  # 51 of the 256 that arrive
    assert 40 < grid.faults_seen["slow"] < 90
