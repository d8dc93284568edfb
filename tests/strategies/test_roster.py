"""Who is asked, and what the policy is told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fl_opt.errors import ConfigError
from fl_opt.simulation import VirtualGrid
from strategies.roster import Roster
from strategies.selection import Report, Selection, build_selection
from tests.strategies.stepping import stepping_app
from tests.toy import toy_grid

NODES = list(range(1000, 1006))


class Noting(Selection):
    """Takes the last of those on offer, and keeps what it is asked and told."""

    name = "noting"

    def __init__(self) -> None:
        self.offers: list[tuple[list[int], int]] = []
        self.reports: list[Report] = []

    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        self.offers.append((list(node_ids), server_round))
        return sorted(node_ids)[-count:]

    def observe(self, report: Report) -> None:
        self.reports.append(report)

    def state(self) -> dict[str, Any]:
        return {"told": len(self.reports)}

    def restore(self, values: Mapping[str, Any]) -> None:
        self.restored = values["told"]


@pytest.fixture
def grid() -> VirtualGrid:
    return toy_grid(stepping_app(lambda _: 1), len(NODES))


@pytest.fixture
def roster(grid: VirtualGrid) -> Roster:
    roster = Roster(Noting(), node_timeout=3.0)
    assert roster.look(grid, needed=2) == len(NODES)
    return roster


def policy_of(roster: Roster) -> Noting:
    assert isinstance(roster.selection, Noting)
    return roster.selection


def test_too_few_clients_are_waited_for_and_then_an_error(grid: VirtualGrid) -> None:
    message = "needs 7 clients, but 6 are connected after 3 s"
    with pytest.raises(ConfigError, match=message):
        Roster(Noting(), node_timeout=3.0).look(grid, needed=7)
    assert grid.clock.time() == 3.0


def test_the_policy_chooses_among_those_that_are_free(roster: Roster) -> None:
    assert roster.choose(2, busy={1005, 1001}) == [1003, 1004]
    assert policy_of(roster).offers == [([1000, 1002, 1003, 1004], 1)]


def test_no_more_are_chosen_than_are_free(roster: Roster) -> None:
    assert roster.choose(99, busy={1000}) == NODES[1:]
    assert roster.choose(3, busy=set(NODES)) == []
    assert roster.choose(0, busy=set()) == []


def test_draws_are_numbered_and_those_of_nobody_do_not_count(roster: Roster) -> None:
    roster.choose(1, busy=set())
    roster.choose(1, busy=set(NODES))
    roster.choose(0, busy=set())
    roster.choose(1, busy=set())
    assert [number for _, number in policy_of(roster).offers] == [1, 2]


def test_each_request_is_reported_once_with_its_own_draw(roster: Roster) -> None:
    roster.choose(1, busy=set())
    roster.choose(1, busy={1005})
    roster.report(1005, 2.5, used=True, num_examples=7, loss=0.5, update_norm=1.5)
    roster.report(1005, 3.0, used=True)  # a duplicate
    roster.report(1000, 1.0, used=False)  # was never asked
    roster.report(1004, 4.0, used=False)
    assert policy_of(roster).reports == [
        Report(1005, 1, 2.5, True, 7, 0.5, 1.5),
        Report(1004, 2, 4.0, False),
    ]


def test_who_is_asked_again_is_reported_for_the_last_time(roster: Roster) -> None:
    for _ in range(3):
        roster.choose(1, busy=set())
    roster.report(1005, 1.0, used=True)
    assert [report.server_round for report in policy_of(roster).reports] == [3]


def test_a_roster_goes_on_from_its_state(grid: VirtualGrid) -> None:
    def fresh() -> Roster:
        roster = Roster(build_selection("available | oort", seed=3), node_timeout=0.0)
        roster.look(grid, needed=2)
        return roster

    first, second = fresh(), fresh()
    asked = first.choose(3, busy=set())
    first.report(asked[0], 2.0, used=True, num_examples=4, loss=1.0, update_norm=0.1)
    first.report(asked[1], 9.0, used=False)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    for roster in (first, second):
        roster.report(asked[2], 1.0, used=True, num_examples=5, loss=0.5, update_norm=0.2)
    assert first.state() == second.state()
    choices = [[roster.choose(2, busy={1000}) for _ in range(5)] for roster in (first, second)]
    assert choices[0] == choices[1]
