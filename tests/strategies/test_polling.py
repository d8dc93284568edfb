"""Waiting for replies: soon where one is due, seldom where none is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.polling import LONGEST_WAIT, LOOKS, MARGIN, SHORTEST_WAIT, Polling

NODE = 7
durations = st.floats(0.0, 300.0)


@dataclass(frozen=True)
class Seen:
    """How a reply was found: how long after it had come, and with how many looks."""

    lag: float
    looks: int


def ask(polling: Polling, turnaround: float, *, at: float = 0.0, node: int = NODE) -> Seen:
    """Send a message, and look for its reply as told."""
    key = f"{node}-{at}"
    polling.sent(key, node, at)
    now, looks = at, 1
    while now - at < turnaround:
        now += polling.wait(now)
        looks += 1
    polling.answered(key, now)
    return Seen(now - at - turnaround, looks)


def learned(turnarounds: Iterable[float]) -> Polling:
    """Return what has seen a node answer, and a long pause after that."""
    polling = Polling()
    for number, turnaround in enumerate(turnarounds):
        ask(polling, turnaround, at=1e4 * number)
    return polling


def test_looks_seldom_when_nothing_is_open() -> None:
    assert Polling().wait(5.0) == LONGEST_WAIT


def test_looks_ever_less_for_a_node_that_it_does_not_know() -> None:
    polling = Polling()
    polling.sent("a", NODE, 100.0)
    waits = [polling.wait(now) for now in (100.0, 101.0, 102.0, 103.0, 110.0, 1000.0)]
    assert waits == [SHORTEST_WAIT, 0.25, 0.5, 0.75, LONGEST_WAIT, LONGEST_WAIT]


def test_looks_seldom_until_a_known_node_is_due_then_often_then_seldom() -> None:
    polling = learned([20.0] * 20)
    polling.sent("a", NODE, 0.0)
    assert polling.wait(2.0) == LONGEST_WAIT
    assert polling.wait(20.0) == SHORTEST_WAIT
    assert polling.wait(22.0) == pytest.approx(0.25, abs=0.1)
    assert polling.wait(60.0) == LONGEST_WAIT


def test_the_last_wait_before_a_reply_is_due_ends_when_it_is() -> None:
    polling = learned([20.0] * 20)
    polling.sent("a", NODE, 0.0)
    waits = [polling.wait(now) for now in (18.0, 18.2, 18.4)]
    assert all(SHORTEST_WAIT < wait < LONGEST_WAIT for wait in waits)
    assert [18.0 + waits[0], 18.2 + waits[1]] == pytest.approx([18.4 + waits[2]] * 2)


def test_learns_each_node_alone() -> None:
    polling = Polling()
    for number in range(20):
        ask(polling, 2.0, at=1e4 * number, node=1)
        ask(polling, 60.0, at=1e4 * number + 5e3, node=2)
    polling.sent("slow", 2, 0.0)
    assert polling.wait(2.0) == LONGEST_WAIT
    polling.sent("fast", 1, 0.0)
    assert polling.wait(2.0) == SHORTEST_WAIT


def test_follows_a_node_that_becomes_slower_and_faster() -> None:
    polling = learned([4.0] * 20 + [9.0] * 60)
    assert ask(polling, 9.0, at=1e7).lag <= SHORTEST_WAIT
    polling = learned([9.0] * 20 + [4.0] * 60)
    assert ask(polling, 4.0, at=1e7).lag <= SHORTEST_WAIT


def test_an_answer_that_nobody_waits_for_is_ignored() -> None:
    polling = Polling()
    polling.answered("never sent", 1.0)
    polling.sent("a", NODE, 1.0)
    polling.answered("a", 2.0)
    polling.answered("a", 900.0)  # once more
    polling.sent("b", NODE, 1000.0)
    assert polling.wait(1001.0) < LONGEST_WAIT


def test_nothing_is_learned_from_a_message_that_is_given_up() -> None:
    polling = learned([5.0] * 10)
    polling.sent("a", NODE, 0.0)
    polling.given_up("a")
    polling.given_up("a")
    polling.answered("a", 300.0)
    assert len(polling) == 0
    assert polling.wait(300.0) == LONGEST_WAIT
    assert ask(polling, 5.0, at=1e6).lag <= SHORTEST_WAIT


def test_remembers_open_messages_and_nodes_only() -> None:
    polling = Polling()
    for number in range(1000):
        ask(polling, 1.0, at=10.0 * number, node=number % 3)
    assert len(polling) == 0
    assert len(polling._turnarounds) == 3


@settings(max_examples=25)
@given(turnaround=st.floats(0.0, 100.0))
def test_a_reply_at_a_learned_time_is_seen_soon_and_cheaply(turnaround: float) -> None:
    seen = ask(learned([turnaround] * 20), turnaround, at=1e7)
    # The time between two looks leaves a doubt, by which replies are due a little longer.
    due_before = 1.2 * max(MARGIN * turnaround, SHORTEST_WAIT) + 1.5 * SHORTEST_WAIT
    assert seen.lag <= max(SHORTEST_WAIT, due_before / LOOKS) + 1e-6
    seldom = math.ceil(turnaround / LONGEST_WAIT)
    assert seen.looks <= seldom + min(LOOKS, due_before / SHORTEST_WAIT) + 3


@settings(max_examples=25)
@given(
    turnaround=st.floats(1.0, 50.0),
    jitter=st.lists(st.floats(-0.2, 0.2), min_size=15, max_size=25),
)
def test_replies_about_a_learned_time_lag_by_a_small_part(
    turnaround: float, jitter: list[float]
) -> None:
    polling = Polling()
    for number, part in enumerate(jitter):
        seen = ask(polling, turnaround * (1.0 + part), at=1e4 * number)
        assert seen.lag <= LONGEST_WAIT + 1e-6
    assert seen.lag <= max(SHORTEST_WAIT, 0.1 * turnaround) + 1e-6


events = st.one_of(
    st.tuples(st.just("sent"), st.integers(0, 4), durations),
    st.tuples(st.just("answered"), st.integers(0, 30), durations),
    st.tuples(st.just("given up"), st.integers(0, 30), durations),
)


@given(st.lists(events, max_size=40))
def test_a_wait_is_within_its_bounds_whatever_happens(
    history: list[tuple[str, int, float]],
) -> None:
    polling = Polling()
    now = 0.0
    sent: set[str] = set()
    for number, (what, which, pause) in enumerate(history):
        now += pause
        if what == "sent":
            polling.sent(str(number), which, now)
            sent.add(str(number))
        elif what == "answered":
            polling.answered(str(which), now)
            sent.discard(str(which))
        else:
            polling.given_up(str(which))
            sent.discard(str(which))
        assert SHORTEST_WAIT <= polling.wait(now) <= LONGEST_WAIT
        assert len(polling) == len(sent)
