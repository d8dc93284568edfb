"""Local work sized per client: what is learned, and what it is good for."""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.errors import CheckpointError, ConfigError
from fl_opt.profiling.rounds import RoundRecord
from strategies.balance import BALANCES, Balance
from tests.strategies.federation import run
from tests.strategies.stepping import stepping_app

SPEC = "equal-time(least=0.25, most=3.0, newcomer=1.0)"
reports = st.tuples(
    st.integers(0, 5),
    st.floats(1e-3, 1e6) | st.sampled_from([0.0, -1.0, float("inf"), float("nan")]),
    st.none() | st.floats(0.0) | st.integers(1, 10**6) | st.just(float("nan")),
)


def taught(*seconds: float, steps: float = 20, spec: str = SPEC) -> Balance:
    """A balance that has seen each client once."""
    balance = Balance(spec)
    for node_id, time in enumerate(seconds):
        balance.observe(node_id, time, steps)
    return balance


def test_everybody_is_to_take_as_long_as_the_median_client() -> None:
    balance = taught(2.0, 4.0, 5.0)
    assert [balance.steps(node_id) for node_id in range(3)] == [40, 20, 16]


def test_work_is_kept_within_bounds() -> None:
    balance = taught(0.001, 4.0, 1000.0)
    assert [balance.steps(node_id) for node_id in range(3)] == [60, 20, 5]
    assert taught(1.0, 1.0, 1000.0, steps=1).steps(2) == 1  # nobody is asked for nothing


def test_a_client_first_does_its_ordinary_work() -> None:
    balance = taught(2.0, 4.0)
    assert balance.steps(7) is None
    balance.observe(7, 3.0, 8)
    assert balance.steps(7) == 8  # it is the median client


def test_a_change_of_speed_is_followed_half_way() -> None:
    balance = taught(4.0, 4.0, 4.0)
    balance.observe(0, 8.0, 10)  # 0.8 seconds a step after 0.2: taken for 0.5
    assert balance.steps(0) == 8


def test_the_measure_is_ordinary_work_and_not_what_was_asked_for() -> None:
    """Bounds are shares of what a client did at first, however often it does more or less."""
    balance = taught(0.5, 4.0, 40.0)
    for _ in range(5):
        asked = [balance.steps(node_id) for node_id in range(3)]
        assert asked == [60, 20, 5]
        for node_id, seconds in enumerate((0.025, 0.2, 2.0)):
            balance.observe(node_id, seconds * (asked[node_id] or 0), asked[node_id])


def test_the_median_is_that_of_all_who_are_known_by_then() -> None:
    balance = taught(2.0, 4.0, 4.0)
    assert balance.steps(0) == 40
    for node_id in range(3, 6):
        balance.observe(node_id, 1.0, 20)
    assert balance.steps(0) == 15  # the median is now 1.5 seconds


@pytest.mark.parametrize("steps", [None, 0, 0.5, -1.0, float("nan"), float("inf"), 1e12])
def test_numbers_of_steps_that_make_no_sense_teach_nothing(steps: Any) -> None:
    balance = taught(2.0, 4.0)
    balance.observe(7, 3.0, steps)
    assert balance.steps(7) is None
    assert balance.state() == taught(2.0, 4.0).state()


@given(st.lists(reports, max_size=12))
@settings(max_examples=40)
def test_whatever_clients_say_their_work_stays_within_bounds(
    told: list[tuple[int, float, float | None]],
) -> None:
    balance = Balance(SPEC)
    for report in told:
        balance.observe(*report)
    for node_id, (ordinary, *_) in balance.state().get("speeds", {}).items():
        steps = balance.steps(int(node_id))
        assert steps is not None
        assert max(1, 0.25 * ordinary - 1) <= steps <= 3.0 * ordinary + 1


@given(st.lists(reports, max_size=12))
@settings(max_examples=40)
def test_a_balance_goes_on_from_its_state(told: list[tuple[int, float, float | None]]) -> None:
    first, second = Balance(SPEC), Balance(SPEC)
    second.observe(3, 1.0, 1)
    for report in told:
        first.observe(*report)
    second.steps(3)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    for balance in (first, second):
        balance.observe(1, 2.0, 30)
    assert [first.steps(n) for n in range(7)] == [second.steps(n) for n in range(7)]


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"speeds": {}},
        {"speeds": {"x": [1, 2.0, 3]}, "trials": []},
        {"speeds": {"1": [1]}, "trials": []},
        {"speeds": {"1": None}, "trials": []},
        {"speeds": {}, "trials": ["x"]},
    ],
)
def test_a_damaged_state_is_refused(values: Any) -> None:
    with pytest.raises(CheckpointError, match="state of the balance is damaged"):
        Balance(SPEC).restore(values)


def test_without_balance_nothing_is_learned() -> None:
    balance = taught(2.0, 4.0, spec="none")
    assert balance.steps(0) is None
    assert balance.state() == {}


def test_a_newcomer_does_a_part_and_its_ordinary_work_is_told_by_its_examples() -> None:
    balance = Balance("equal-time(newcomer=0.1)")
    assert balance.steps(0) is None  # nobody is known yet
    for node_id in range(3):
        balance.observe(node_id, 4.0, 20, 600)
    assert balance.steps(7) == 2
    balance = restored(balance)
    balance.observe(7, 1.6, 2, 300)  # 0.8 s a step, four times the others, half their examples
    assert balance.steps(7) == 5  # its ordinary 10 take 8 s, the median client's 4 s
    assert balance.steps(0) == 20


def test_a_newcomer_that_says_nothing_of_its_examples_is_taken_for_an_ordinary_one() -> None:
    balance = taught(4.0, 4.0, spec="equal-time(newcomer=0.5)")
    assert balance.steps(7) == 10
    balance.observe(7, 2.0, 10)
    assert balance.steps(7) == 20


def restored(balance: Balance) -> Balance:
    after = Balance("equal-time(newcomer=0.1)")
    after.restore(json.loads(json.dumps(balance.state())))
    return after


def federate(balance: str) -> tuple[RoundRecord, dict[tuple[int, int], Any]]:
    """The last of five rounds, and the steps asked of each node in each round."""
    asked: dict[tuple[int, int], Any] = {}

    def note(message: Message, context: Context, app: ClientApp) -> Message:
        config = message.content.config_records["config"]
        server_round = config["server-round"]
        assert isinstance(server_round, int)
        asked[context.node_id, server_round] = config.get("local-steps")
        return app(message, context)

    _, recorder = run(
        note,
        app=stepping_app(lambda _: 20),
        num_clients=8,
        spread=1.0,
        num_rounds=5,
        evaluate_every=0,
        balance=balance,
    )
    return recorder.rounds[-1], asked


def idle_share(record: RoundRecord) -> float:
    """The part of a round that clients spend waiting for the slowest."""
    seconds = [client.seconds for client in record.clients]
    return 1.0 - statistics.mean(seconds) / max(seconds)


def test_slow_clients_do_less_and_nobody_waits_long() -> None:
    plain, ordinary = federate("none")
    balanced, sized = federate("equal-time(least=0.01, most=50)")
    slowest_first = sorted(plain.clients, key=lambda client: -client.seconds)
    nodes = [client.node_id for client in slowest_first]
    assert [sized[node_id, 1] for node_id in nodes] == [None] * 8
    assert [ordinary[node_id, 5] for node_id in nodes] == [None] * 8
    steps = [sized[node_id, 5] for node_id in nodes]
    assert steps == sorted(steps)
    assert steps[0] < 15
    assert steps[-1] > 25
    assert idle_share(plain) > 0.25
    assert idle_share(balanced) < 0.05
    assert balanced.virtual_seconds is not None
    assert plain.virtual_seconds is not None
    assert balanced.virtual_seconds < 0.8 * plain.virtual_seconds


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("equal", "position 1: unknown balance 'equal'; known are none, equal-time"),
        ("equal-time(least=0)", r"least = 0\.0 is not in \(0, 1\]"),
        ("equal-time(most=0.5)", r"most = 0\.5 is not from 1 to 1000"),
        ("equal-time(least=nan)", "least = nan is not in"),
        ("equal-time(newcomer=0)", r"newcomer = 0\.0 is not in \(0, 1\]"),
        ("none(1)", "'none' takes no arguments"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Balance(spec)


def test_names_are_those_of_specs() -> None:
    assert list(BALANCES) == ["none", "equal-time"]
