"""Draws of faults: pure, independent, as likely as they are meant to be."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import get_args

import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.config import FaultSettings
from fl_opt.errors import ConfigError
from fl_opt.exchange.traffic import message_bytes
from fl_opt.simulation.faults import DOWN, UP, Fault, FaultPlan, build_fault_plan
from fl_opt.simulation.identity import act_as_server
from tests.simulation.apps import payload, question

KINDS: tuple[Fault, ...] = get_args(Fault)
NODE = 1003


def plan_of(fault: Fault, rate: float, seed: int = 5) -> FaultPlan:
    return FaultPlan(seed, **{fault.replace("-", "_"): rate})


@pytest.mark.parametrize("fault", KINDS)
def test_a_fault_happens_as_often_as_it_should(fault: Fault) -> None:
    plan = plan_of(fault, 0.2)
    hits = sum(plan.happens(fault, NODE, number) for number in range(2000))
    assert 400 - 4 * 18 < hits < 400 + 4 * 18  # a standard deviation is 18
    others = [other for other in KINDS if other != fault]
    assert not any(plan.happens(other, NODE, n) for other in others for n in range(20))


@pytest.mark.parametrize("fault", KINDS)
def test_never_and_always(fault: Fault) -> None:
    assert not any(plan_of(fault, 0.0).happens(fault, NODE, n) for n in range(100))
    assert all(plan_of(fault, 1.0).happens(fault, NODE, n) for n in range(100))


def test_draws_depend_on_seed_kind_and_place_alone() -> None:
    def draws(plan: FaultPlan, fault: Fault, node: int) -> list[bool]:
        return [plan.happens(fault, node, number) for number in range(64)]

    plan = FaultPlan(1, lose_down=0.5, lose_up=0.5)
    first = draws(plan, "lose-down", NODE)
    others = [
        draws(plan, "lose-up", NODE),
        draws(plan, "lose-down", NODE + 1),
        draws(FaultPlan(2, lose_down=0.5), "lose-down", NODE),
    ]
    assert first not in others
    assert draws(FaultPlan(1, lose_down=0.5), "lose-down", NODE) == first
    assert draws(plan, "lose-down", NODE)[::-1] == [
        plan.happens("lose-down", NODE, number) for number in reversed(range(64))
    ]


def test_a_higher_rate_strikes_more_of_the_same() -> None:
    few, many = (
        {n for n in range(300) if plan_of("lose-up", rate).happens("lose-up", NODE, n)}
        for rate in (0.1, 0.3)
    )
    assert few < many


def test_delays_are_exponential() -> None:
    plan = FaultPlan(3, delay=0.5, delay_seconds=4.0)
    delays = [plan.extra_seconds(NODE, number, 0, DOWN) for number in range(2000)]
    late = [delay for delay in delays if delay]
    assert 900 < len(late) < 1100
    assert sum(late) / len(late) == pytest.approx(4.0, rel=0.12)
    beyond = sum(delay > 4.0 for delay in late) / len(late)
    assert beyond == pytest.approx(math.exp(-1), abs=0.05)
    assert delays != [plan.extra_seconds(NODE, number, 0, UP) for number in range(2000)]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), min_size=3, max_size=3))
def test_restarts_add_up(seed: int, rounds: list[int]) -> None:
    plan = FaultPlan(seed, restart=0.1)
    first, middle, last = sorted(rounds)
    in_parts = plan.restarts(NODE, after=first, until=middle) or plan.restarts(
        NODE, after=middle, until=last
    )
    assert plan.restarts(NODE, after=first, until=last) == in_parts
    assert not plan.restarts(NODE, after=last, until=first)


def test_share_of_clients_that_restart_in_a_round() -> None:
    plan = FaultPlan(4, restart=0.3)
    restarted = sum(plan.restarts(1000 + p, after=6, until=7) for p in range(1000))
    assert 300 - 4 * 15 < restarted < 300 + 4 * 15


def test_both_copies_get_to_answer() -> None:
    answers = [FaultPlan(1).answering_copy(NODE, number) for number in range(200)]
    assert 60 < sum(answers) < 140
    assert set(answers) == {0, 1}


class TestCorruption:
    def two_arrays(self) -> Message:
        act_as_server()
        records = {
            "a": ArrayRecord({"x": payload(bytes(3)), "empty": payload(b"")}),
            "b": ArrayRecord({"y": payload(bytes(5))}),
        }
        return Message(RecordDict(dict(records)), NODE, "train")

    def bytes_of(self, message: Message) -> bytes:
        records = message.content.array_records.values()
        return b"".join(array.data for record in records for array in record.values())

    def test_one_byte_changes_anywhere_and_the_original_stays(self) -> None:
        message, positions, values = self.two_arrays(), set(), set()
        for number in range(300):
            damaged = FaultPlan(1, corrupt_up=1.0).corrupted("corrupt-up", message, number)
            assert damaged.metadata == message.metadata
            data = self.bytes_of(damaged)
            changed = [position for position, value in enumerate(data) if value]
            assert len(changed) == 1
            positions.add(changed[0])
            values.add(data[changed[0]])
            assert message_bytes(damaged) == message_bytes(message)
        assert positions == set(range(8))
        assert len(values) > 100
        assert self.bytes_of(message) == bytes(8)

    def test_direction(self) -> None:
        plan = FaultPlan(corrupt_down=1.0)
        message = self.two_arrays()
        assert plan.corrupted("corrupt-up", message, 1) is message
        assert plan.corrupted("corrupt-down", message, 1) is not message

    def test_nothing_to_damage(self) -> None:
        plan = FaultPlan(corrupt_down=1.0)
        act_as_server()
        empty = question(NODE, size=0)
        assert plan.corrupted("corrupt-down", empty, 1) is empty


class TestSettings:
    def test_each_fault_has_a_setting(self) -> None:
        names = {name.replace("_", "-") for name in FaultSettings.model_fields}
        assert names == {*KINDS, "delay-seconds", "slow-factor"}

    def test_defaults_are_the_same_and_nothing_happens(self) -> None:
        assert build_fault_plan(FaultSettings(), 7) == FaultPlan(7)
        rates = {asdict(FaultPlan())[fault.replace("-", "_")] for fault in KINDS}
        assert rates == {0.0}

    def test_settings_arrive(self) -> None:
        settings = FaultSettings(lose_up=0.25, slow_factor=3, delay_seconds=0.5)
        expected = FaultPlan(9, lose_up=0.25, slow_factor=3.0, delay_seconds=0.5)
        assert build_fault_plan(settings, 9) == expected

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("lose_up", 1.1),
            ("delay", -0.1),
            ("restart", math.nan),
            ("slow_factor", 0.5),
            ("slow_factor", math.inf),
            ("delay_seconds", -1.0),
            ("seed", 2**32),
        ],
    )
    def test_out_of_range(self, name: str, value: float) -> None:
        with pytest.raises(ConfigError) as caught:
            FaultPlan(**{name: value})  # type: ignore[arg-type]
        assert f"{name} = {value!r} is not" in str(caught.value)
