"""Virtual time moves exactly as far as it is told, or to the next event."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.simulation.clock import VirtualClock, WallClock

moments = st.floats(1.0, 100.0)


def test_sleeps_without_events() -> None:
    clock = VirtualClock()
    clock.sleep(1.5)
    clock.sleep(0.0)
    assert clock.time() == 1.5


def test_wakes_at_the_event_and_then_sleeps_on() -> None:
    clock = VirtualClock()
    clock.schedule(0.3)
    clock.sleep(1.0)
    assert clock.time() == 0.3
    clock.sleep(1.0)
    assert clock.time() == 1.3


@given(events=st.lists(moments, min_size=1), step=moments)
def test_poller_sees_every_event_at_its_time(events: list[float], step: float) -> None:
    clock = VirtualClock()
    for moment in events:
        clock.schedule(moment)
    seen = set()
    while clock.time() < max(events):
        clock.sleep(step)
        seen.add(clock.time())
    assert set(events) <= seen


def test_past_and_infinite_events_wake_nobody() -> None:
    clock = VirtualClock()
    clock.sleep(5.0)
    for moment in (5.0, 1.0, math.inf):
        clock.schedule(moment)
    clock.sleep(2.0)
    assert clock.time() == 7.0


def test_refuses_to_go_back() -> None:
    with pytest.raises(ValueError, match="-1"):
        VirtualClock().sleep(-1)


def test_wall_clock_really_sleeps() -> None:
    clock = WallClock()
    begin = clock.time()
    clock.sleep(0.01)
    assert clock.time() - begin >= 0.009


def test_what_is_scheduled_on_the_last_moment_is_met() -> None:
    clock = VirtualClock()
    asked: list[float] = []

    def decide(moment: float) -> None:
        asked.append(moment)
        if len(asked) == 1:
            clock.schedule(2.0)

    clock.before_moving(decide)
    clock.sleep(5.0)
    assert clock.time() == 2.0
    clock.sleep(5.0)
    assert clock.time() == 7.0
    assert asked == [5.0, 7.0]
