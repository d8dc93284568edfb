"""Rest for clients that fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from strategies.selection import Report, Selection
from strategies.selection.available import Available
from tests.strategies.selection.reports import checkpointed, failed, tell, used


class Everyone(Selection):
    """Chooses all that it is offered, and remembers what it was told."""

    name = "everyone"

    def __init__(self) -> None:
        self.told: list[int] = []

    def select(self, node_ids: Sequence[int], count: int, server_round: int) -> list[int]:
        return sorted(node_ids)

    def observe(self, report: Report) -> None:
        self.told.append(report.node_id)

    def state(self) -> dict[str, Any]:
        return {"told": self.told}

    def restore(self, values: Mapping[str, Any]) -> None:
        self.told = list(values["told"])


def offered(selection: Selection, server_round: int, count: int = 1) -> list[int]:
    """Which of five nodes another policy may choose from."""
    return selection.select(range(5), count, server_round)


def rest_after(failures: int, longest: int) -> int:
    """Rounds without node 3, that failed in round after round."""
    selection = Available(longest).wrap(Everyone())
    tell(selection, [failed(3, server_round) for server_round in range(1, failures + 1)])
    after = failures + 1
    while 3 not in offered(selection, after):
        after += 1
    return after - failures - 1


def test_rest_doubles_up_to_the_longest() -> None:
    assert [rest_after(n, longest=20) for n in range(8)] == [0, 1, 2, 4, 8, 16, 20, 20]
    assert rest_after(1000, longest=5) == 5


def test_a_usable_update_ends_it() -> None:
    selection = Available().wrap(Everyone())
    tell(selection, [failed(3, 1), failed(3, 2), used(3, 2)])
    assert offered(selection, 3) == [0, 1, 2, 3, 4]
    selection.observe(failed(3, 4))
    assert offered(selection, 5) == [0, 1, 2, 4]
    assert offered(selection, 6) == [0, 1, 2, 3, 4]


def test_rest_begins_when_the_failure_is_known() -> None:
    selection = Available().wrap(Everyone())
    tell(selection, [used(0, 9), failed(3, 2)])
    assert 3 not in offered(selection, 10)
    assert 3 in offered(selection, 11)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [4]),
        (2, [1, 4]),
        (3, [0, 1, 2, 4]),  # 0 and 2 have rested equally long
        (4, [0, 1, 2, 4]),
        (5, [0, 1, 2, 3, 4]),
        (9, [0, 1, 2, 3, 4]),
    ],
)
def test_those_that_rested_longest_come_back_if_too_few_remain(
    count: int, expected: list[int]
) -> None:
    selection = Available().wrap(Everyone())
    # In the order of the last failures: 1, then 0 and 2, then 3; all rest beyond round 5.
    tell(selection, [failed(n, 1) for n in (0, 1, 2, 3)])
    tell(selection, [failed(1, 2), failed(1, 2), failed(0, 3), failed(2, 3), failed(3, 4)])
    assert offered(selection, 5, count) == expected


def test_only_connected_nodes_count() -> None:
    selection = Available().wrap(Everyone())
    tell(selection, [failed(3), failed(77)])
    assert selection.select([1, 2, 3], 2, 2) == [1, 2]
    assert selection.select([2, 3], 2, 2) == [2, 3]
    assert selection.select([3], 1, 2) == [3]


def test_the_other_policy_is_told_everything_and_saved_too() -> None:
    inner = Everyone()
    selection = Available().wrap(inner)
    tell(selection, [failed(3), used(1), failed(3, 2)])
    assert inner.told == [3, 1, 3]
    other = Everyone()
    resumed = checkpointed(selection, Available().wrap(other))
    assert other.told == inner.told
    for server_round in range(3, 8):
        assert offered(resumed, server_round) == offered(selection, server_round)
