"""Staleness, schedules and paces: what their formulas say."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.errors import ConfigError
from strategies import CompressedFedAvg
from strategies.pace import Buffer, Rounds
from strategies.schedule import SCHEDULES, Cosine, Step, Warmup, build_schedule
from strategies.staleness import STALENESS, Hinge, Polynomial, Staleness, build_staleness
from tests.strategies.federation import expected_mean, run, weights

staleness_rules = (
    st.just(build_staleness("constant"))
    | st.builds(Polynomial, st.floats(0.01, 10.0))
    | st.builds(Hinge, st.floats(0.01, 1e3), st.integers(0, 20))
)
falling_schedules = st.builds(Step, st.integers(1, 9), st.floats(0.01, 1.0)) | st.builds(
    Cosine, st.integers(1, 99), st.floats(0.01, 1.0)
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("polynomial", [1, 2**-0.5, 3**-0.5, 0.5]),
        ("polynomial(1)", [1, 1 / 2, 1 / 3, 1 / 4]),
        ("hinge", [1, 1, 1, 1, 1, 1 / 11, 1 / 21]),
        ("hinge(slope=0.5, grace=1)", [1, 1, 1 / 1.5, 1 / 2]),
        ("hinge(1, 0)", [1, 1 / 2, 1 / 3]),
    ],
)
def test_weights_of_stale_updates(spec: str, expected: list[float]) -> None:
    rule = build_staleness(spec)
    assert [rule.weight(s) for s in range(len(expected))] == pytest.approx(expected)


@given(staleness_rules, st.integers(0, 10_000))
def test_an_older_update_never_counts_more(rule: Staleness, staleness: int) -> None:
    assert rule.weight(0) == 1.0
    assert 0.0 < rule.weight(staleness + 1) <= rule.weight(staleness) <= 1.0


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("constant", [1, 1, 1]),
        ("warmup(4)", [0.25, 0.5, 0.75, 1, 1]),
        ("warmup(1)", [1, 1]),
        ("step(2)", [1, 1, 0.5, 0.5, 0.25]),
        ("step(1, gamma=0.1)", [1, 0.1, 0.01]),
        ("cosine(4, final=0.2)", [1, 0.6 + 0.2 * 2**0.5, 0.6, 0.6 - 0.2 * 2**0.5, 0.2, 0.2]),
    ],
)
def test_factors_of_the_rate(spec: str, expected: list[float]) -> None:
    schedule = build_schedule(spec)
    assert [schedule.factor(1 + t) for t in range(len(expected))] == pytest.approx(expected)


@given(falling_schedules, st.integers(1, 100_000))
def test_a_rate_falls_and_never_to_nothing(schedule: Step | Cosine, server_round: int) -> None:
    assert schedule.factor(1) == 1.0
    now, then = schedule.factor(server_round), schedule.factor(server_round + 1)
    assert 0.0 < then <= now + 1e-12
    if isinstance(schedule, Cosine):
        assert now >= schedule.final - 1e-12


@given(st.integers(1, 1000), st.integers(1, 2000))
def test_a_warm_up_is_over_in_its_last_round(rounds: int, server_round: int) -> None:
    factor = Warmup(rounds).factor(server_round)
    assert 0.0 < factor <= 1.0
    assert (factor == 1.0) is (server_round >= rounds)


@pytest.mark.parametrize("spec", ["warmup(3)", "cosine(2, 0.3)"])
def test_the_server_takes_its_steps_by_the_schedule(spec: str) -> None:
    path: list[NDArray[Any]] = []
    run(
        server_optimizer="sgd(eta=0.8)",
        server_schedule=spec,
        num_rounds=4,
        evaluate_every=0,
        evaluate_fn=lambda _, arrays: path.append(weights(arrays)),
    )
    model, pull = np.zeros(40), 2.0 * expected_mean(0, 1, 2, 3)
    for server_round in range(1, 5):
        model = model + 0.8 * build_schedule(spec).factor(server_round) * (pull - model) / 2
        np.testing.assert_allclose(path[server_round], model, atol=1e-5)


def test_a_rate_that_has_all_but_vanished_ends_no_run() -> None:
    strategy = CompressedFedAvg(server_schedule="step(1, gamma=0.1)", server_optimizer="adam")
    model = np.linspace(-1, 1, 5, dtype=np.float32)
    after = strategy.step(model, np.ones(5, np.float32), server_round=5000)
    np.testing.assert_allclose(after, model, atol=1e-20)


@given(st.integers(1, 10_000), st.integers(100, 1000))
@example(wanted=10, percent=110)  # 10 * 1.1 is a bit more than 11
def test_over_selection_rounds_up_exactly(wanted: int, percent: int) -> None:
    asked = Rounds(percent / 100).to_ask(wanted, in_flight=7)
    assert asked == math.ceil(wanted * Fraction(percent, 100))


def test_a_round_is_over_early_only_with_over_selection() -> None:
    assert not Rounds().enough(wanted=4, on_time=4, taken=9)
    assert not Rounds(1.3).enough(wanted=4, on_time=3, taken=9)
    assert Rounds(1.3).enough(wanted=4, on_time=4, taken=4)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 100), st.integers(0, 100))
def test_a_buffer_keeps_so_many_at_work_and_counts_whatever_comes(
    size: int, concurrency: int, in_flight: int, taken: int
) -> None:
    pace = Buffer(size, concurrency)
    assert in_flight + pace.to_ask(size, in_flight) == max(concurrency, in_flight)
    assert pace.enough(size, on_time=0, taken=taken) is (taken >= size)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("poly", "position 1: unknown staleness 'poly'; known are constant, polynomial, hinge"),
        ("polynomial(0)", r"exponent = 0\.0 is not between 0 and 100"),
        ("polynomial(nan)", "exponent = nan is not between"),
        ("hinge(slope=0)", r"slope = 0\.0 is not between 0 and 1e6"),
        ("hinge(grace=-1)", "grace = -1 is negative"),
        ("constant(1)", "position 10: too many arguments; 'constant' takes no arguments"),
    ],
)
def test_wrong_staleness_rules_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_staleness(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linear", "position 1: unknown schedule 'linear'; known are constant, warmup, step"),
        ("step", "'rounds' must be given; 'step' takes rounds"),
        ("warmup(0)", "rounds = 0 is not at least 1"),
        ("step(3, gamma=1.1)", r"gamma = 1\.1 is not in \(0, 1\]"),
        ("cosine(3, final=0)", r"final = 0\.0 is not in \(0, 1\]"),
        ("cosine(0)", "rounds = 0 is not at least 1"),
        ("cosine(2.5)", r"rounds = 2\.5 is not valid; 'cosine' takes rounds \(int\), final"),
    ],
)
def test_wrong_schedules_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_schedule(spec)


def test_names_are_those_of_specs() -> None:
    assert list(STALENESS) == ["constant", "polynomial", "hinge"]
    assert list(SCHEDULES) == ["constant", "warmup", "step", "cosine"]
