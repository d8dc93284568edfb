"""Clients in proportion to the norm of their last update."""

from __future__ import annotations

import pytest

from strategies.selection import build_selection
from tests.strategies.selection.reports import frequencies, tell, used


def test_probabilities_are_in_proportion_to_norms_with_a_floor() -> None:
    selection = build_selection("importance(floor=0.1)", seed=1)
    norms = {0: 0.0, 1: 6.0, 2: 3.0}  # of node 3 none is known: the mean, 3
    tell(selection, [used(node, update_norm=norm) for node, norm in norms.items()])
    shares = frequencies(selection, range(4), 1, 1000)
    weights = (0.3, 6.0, 3.0, 3.0)  # the mean of all four is 3
    for node, weight in enumerate(weights):
        assert shares[node] == pytest.approx(weight / sum(weights), abs=0.05)


def test_a_floor_of_one_makes_small_updates_count_as_average_ones() -> None:
    selection = build_selection("importance(floor=1)", seed=1)
    tell(selection, [used(node, update_norm=norm) for node, norm in enumerate((0, 1, 2))])
    shares = frequencies(selection, range(3), 1, 1000)
    for node, share in enumerate((0.25, 0.25, 0.5)):
        assert shares[node] == pytest.approx(share, abs=0.05)
