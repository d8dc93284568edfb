"""Levels by bandwidth: within bounds, monotone, and no later than the slowest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.codecs import build_codec
from fl_opt.errors import CheckpointError, ConfigError
from fl_opt.exchange.budget import Budget, Exchange, captured_energy
from fl_opt.exchange.ladder import Ladder, build_ladder, is_auto

SIZE = 1_000_000
LATENCY = 0.05


def ladder(uplink: str = "auto", downlink: str = "fp32") -> Ladder:
    found = build_ladder(uplink, downlink)
    assert found is not None
    return found


def taught(mbps: dict[int, float], *, work: float = 0.0, **options: str) -> Budget:
    """A budget that has seen clients of several bandwidths at all levels, again and again."""
    budget = Budget(ladder(**options))
    budget.begin(SIZE)
    for _ in range(4):
        for node_id, rate in mbps.items():
            for level in range(len(budget.ladder.levels)):
                down, up = (int(size) for size in budget.sizes(level))
                seconds = LATENCY + 8 * (down + up) / 1e6 / rate
                budget.observe(node_id, Exchange(level, down, up, seconds + work, work))
    return budget


def test_a_ladder_of_shares() -> None:
    levels = ladder("auto(leanest=0.01, richest=0.08)").levels
    shares = [level.up for level in levels]
    assert shares == [f"topk({share}) | ternary" for share in (0.01, 0.02, 0.04, 0.08)]
    assert all(level.down is None for level in levels)
    assert ladder().ordinary == ladder().levels.index(
        next(level for level in ladder().levels if "0.02" in level.up)
    )


def test_both_directions_have_the_same_number_of_levels() -> None:
    found = ladder("auto(0.01, 0.02)", "auto(leanest=0.25, richest=2.0)")
    assert [level.down for level in found.levels] == [
        *("ecsq(0.25)", "ecsq(0.5)", "ecsq(1)", "ecsq(2)")
    ]
    assert found.levels[0].up == "topk(0.01) | ternary"
    assert found.levels[-1].up == "topk(0.02) | ternary"
    for level in found.levels:
        build_codec(level.up)
        build_codec(str(level.down))


def test_only_the_downlink() -> None:
    found = ladder("int8", "auto(0.5, 2.0)")
    assert {level.up for level in found.levels} == {"int8"}
    assert found.levels[found.ordinary].down == "ecsq(1)"


def test_nothing_is_left_open() -> None:
    assert build_ladder("topk(0.02) | ternary", "ecsq(1.0)") is None
    assert is_auto(" auto (0.1, 0.2)")
    assert not is_auto("autobahn")


@pytest.mark.parametrize(
    ("uplink", "downlink", "reason"),
    [
        ("auto(0.1, 0.01)", "fp32", "leanest = 0.1 and richest = 0.01"),
        ("auto(0.0, 0.01)", "fp32", "leanest = 0.0"),
        ("auto(0.1, 0.6)", "fp32", "richest = 0.6"),
        ("auto(energy=1.0)", "fp32", r"energy = 1.0 is not from 0 to 0.9"),
        ("auto(slack=-1)", "fp32", "slack = -1"),
        ("auto(fast=1)", "fp32", "fast"),
        ("int8", "auto(1, 9)", "richest = 9"),
        ("auto | ternary", "fp32", "position"),
    ],
)
def test_a_wrong_spec(uplink: str, downlink: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_ladder(uplink, downlink)


def test_who_is_faster_sends_more() -> None:
    budget = taught({1: 0.2, 2: 0.6, 3: 2.0, 4: 100.0})
    levels = budget.choose([1, 2, 3, 4], 4)
    assert levels[1] < levels[2] < levels[3] <= levels[4] == len(budget.ladder.levels) - 1
    slowest = budget.seconds(1, budget.leanest())
    assert all(budget.seconds(n, levels[n]) <= 1.1 * slowest * 1.001 for n in levels)


def test_bytes_that_take_no_time_are_not_saved() -> None:
    budget = taught({1: 500.0, 2: 900.0}, work=2.0)
    assert set(budget.choose([1, 2], 2).values()) == {len(budget.ladder.levels) - 1}


def test_those_who_are_not_waited_for_are_no_reason_to_wait() -> None:
    budget = taught({1: 0.1, 2: 10.0, 3: 10.0, 4: 10.0})
    waiting, hurrying = budget.choose([1, 2, 3, 4], 4), budget.choose([1, 2, 3, 4], 3)
    assert hurrying[2] < waiting[2]
    assert hurrying[1] == 0


def test_a_client_of_whom_nothing_is_known_gets_the_ordinary_level() -> None:
    budget = Budget(ladder())
    budget.begin(SIZE)
    assert budget.choose([5, 6], 2) == {5: budget.ladder.ordinary, 6: budget.ladder.ordinary}


def test_where_nobody_is_asked_nothing_is_chosen() -> None:
    assert taught({1: 0.1}).choose([], 2) == {}


def test_a_newcomer_gets_no_more_than_a_slow_client_has_time_for() -> None:
    slow = taught({1: 0.1, 2: 0.1, 3: 100.0, 4: 0.1})
    assert slow.choose([3, 9], 2)[9] < slow.ladder.ordinary
    assert slow.choose([3, 9], 2)[3] == len(slow.ladder.levels) - 1
    fast = taught(dict.fromkeys(range(1, 5), 900.0), work=2.0)
    assert fast.choose([8, 9], 2) == {8: fast.ladder.ordinary, 9: fast.ladder.ordinary}


def test_levels_that_hold_too_little_are_not_used() -> None:
    budget = taught({1: 0.2, 2: 10.0}, uplink="auto(energy=0.5)")
    for level, energy in enumerate((0.2, 0.4, 0.6, 0.8)):
        budget.observe(1, Exchange(level, 1000, 1000, 1.0, 0.0, energy))
    assert budget.leanest() == 2
    assert min(budget.choose([1, 2], 2).values()) == 2


def test_without_progress_the_leanest_level_is_given_up() -> None:
    budget = taught({1: 0.2})
    for k in range(30):
        budget.end_round(1.0 / (1 + k))
    assert budget.leanest() == 0
    for _ in range(22):
        budget.end_round(1.0 / 30)
    assert budget.leanest() == 1
    for _ in range(200):
        budget.end_round(1.0 / 30)
    assert budget.leanest() == len(budget.ladder.levels) - 1


@given(
    st.lists(st.floats(0.01, 1000.0), min_size=1, max_size=8),
    st.floats(0.0, 10.0),
    st.integers(1, 8),
)
def test_levels_are_within_bounds_and_rise_with_bandwidth(
    rates: list[float], work: float, wanted: int
) -> None:
    rates.sort()
    budget = taught(dict(enumerate(rates)), work=work)
    levels = budget.choose(range(len(rates)), min(wanted, len(rates)))
    top = len(budget.ladder.levels) - 1
    assert all(0 <= level <= top for level in levels.values())
    for slow in range(len(rates)):
        for fast in range(slow + 1, len(rates)):
            if rates[fast] > 1.5 * rates[slow]:  # what is learned is not exact
                assert levels[slow] <= levels[fast]


def test_a_budget_goes_on_from_a_checkpoint() -> None:
    one = taught({1: 0.2, 2: 5.0}, uplink="auto(energy=0.3)", downlink="auto(0.5, 2)")
    one.observe(1, Exchange(0, 1000, 1000, 1.0, 0.0, 0.2))
    one.end_round(0.5)
    other = Budget(one.ladder)
    other.restore(json.loads(json.dumps(one.state())))
    assert other.state() == one.state()
    assert other.choose([1, 2, 3], 3) == one.choose([1, 2, 3], 3)


@pytest.mark.parametrize("values", [{}, {"size": 1, "links": {"1": [2.0]}}, {"size": "many"}])
def test_a_damaged_state(values: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="budget is damaged"):
        Budget(ladder()).restore(values)


def test_captured_energy() -> None:
    assert captured_energy(0.5, 1.0) == 0.25
    assert captured_energy(2.0, 1.0) == 1.0
    assert captured_energy(1.0, 0.0) is None
