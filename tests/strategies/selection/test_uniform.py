"""The uniform policy."""

from __future__ import annotations

import pytest

from strategies.selection import UniformSelection
from tests.strategies.selection.reports import frequencies


@pytest.mark.parametrize(
    ("seed", "nodes", "count", "server_round", "expected"),
    [
        (42, range(100), 5, 1, [34, 65, 74, 76, 85]),
        (42, range(100), 5, 2, [4, 11, 29, 43, 44]),
        (7, [2**64 - 1, 2**63, 5, 17, 99, 1234], 3, 9, [17, 1234, 2**64 - 1]),
    ],
)
def test_draws_never_change(
    seed: int, nodes: list[int], count: int, server_round: int, expected: list[int]
) -> None:
    assert UniformSelection(seed).select(nodes, count, server_round) == expected


def test_all_nodes_are_equally_likely() -> None:
    for share in frequencies(UniformSelection(1), range(10), 3, 1000).values():
        assert share == pytest.approx(0.3, abs=0.05)
