"""The highest losses among a few candidates."""

from __future__ import annotations

import pytest

from strategies.selection import Selection, build_selection
from tests.strategies.selection.reports import failed, frequencies, tell, used


def told(spec: str, losses: dict[int, float]) -> Selection:
    selection = build_selection(spec, seed=1)
    tell(selection, [used(node, loss=loss) for node, loss in losses.items()])
    return selection


def test_with_all_as_candidates_the_highest_losses_are_chosen() -> None:
    losses = {0: 0.5, 1: 2.5, 2: 1.5, 3: 3.5, 4: 0.1}
    selection = told("power-of-choice(candidates=5)", losses)
    for server_round in range(1, 20):
        assert selection.select(range(5), 2, server_round) == [1, 3]
    selection.observe(used(3, loss=0.2))
    assert selection.select(range(5), 2, 20) == [1, 2]


def test_the_best_of_two_candidates_is_chosen() -> None:
    # Of the pairs of 4 equal clients, the k-th smallest loss is the larger one in k - 1 of 6.
    selection = told("power-of-choice(2)", {node: float(node) for node in range(4)})
    for node, share in frequencies(selection, range(4), 1, 1000).items():
        assert share == pytest.approx(node / 6, abs=0.05)


@pytest.mark.parametrize("spec", ["power-of-choice", "power-of-choice(4)"])
def test_by_default_there_are_twice_as_many_candidates(spec: str) -> None:
    losses = {node: float(node) for node in range(10)}
    chosen = told(spec, losses).select(range(10), 2, 1)
    assert chosen == told("power-of-choice(candidates=4)", losses).select(range(10), 2, 1)


def test_candidates_are_in_proportion_to_examples() -> None:
    selection = build_selection("power-of-choice(candidates=1)", seed=1)
    tell(selection, [used(0, num_examples=10, loss=1.0), used(1, num_examples=50, loss=1.0)])
    # Node 2 was never asked: it counts as if it had the mean number, 30.
    shares = frequencies(selection, range(3), 1, 1000)
    for node, share in enumerate((10 / 90, 50 / 90, 30 / 90)):
        assert shares[node] == pytest.approx(share, abs=0.05)


def test_who_was_never_asked_comes_first_and_who_told_nothing_is_average() -> None:
    selection = told("power-of-choice(candidates=9)", {0: 1.0, 1: 2.0, 2: 6.0})
    tell(selection, [failed(3), used(4, loss=None)])  # taken for 3.0
    assert selection.select(range(6), 1, 1) == [5]
    assert selection.select(range(6), 2, 1) == [2, 5]
    assert selection.select(range(6), 4, 1) == [2, 3, 4, 5]
    assert selection.select(range(6), 5, 1) == [1, 2, 3, 4, 5]


def test_without_any_losses_it_is_a_draw() -> None:
    selection = build_selection("power-of-choice(candidates=4)", seed=1)
    tell(selection, [used(node) for node in range(4)])
    for share in frequencies(selection, range(4), 1, 1000).values():
        assert share == pytest.approx(0.25, abs=0.05)
