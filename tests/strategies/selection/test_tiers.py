"""Clients that are equally fast, together."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.selection import Report, Selection, build_selection
from strategies.selection.history import History
from strategies.selection.tiers import tier_shares, tiers_of
from tests.strategies.selection.reports import failed, frequencies, tell, used

SECONDS = (9.0, 1.0, 5.0, 2.0, 6.0, 8.0)
"""Of nodes 0 to 5: the tiers of two are 1 and 3, 2 and 4, 0 and 5."""
TIERS = ({1, 3}, {2, 4}, {0, 5})


def of_six(spec: str, losses: tuple[float, ...] = (1.0,) * 6) -> Selection:
    selection = build_selection(spec, seed=1)
    tell(selection, [used(n, seconds=SECONDS[n], loss=losses[n]) for n in range(6)])
    return selection


def split(reports: list[Report], number: int, tiers: int) -> NDArray[np.intp]:
    history = History()
    for report in reports:
        history.add(report)
    return tiers_of(history.of(range(number)), np.arange(number), tiers)


def test_tiers_are_cut_by_seconds_and_failures_are_slowest() -> None:
    reports = [used(n, seconds=SECONDS[n]) for n in range(6)]
    assert split(reports, 6, 3).tolist() == [2, 0, 1, 0, 1, 2]
    assert split(reports, 6, 1).tolist() == [0] * 6
    assert split(reports, 6, 9).tolist() == [5, 0, 2, 1, 3, 4]
    reports.append(failed(1, seconds=0.1))
    assert split(reports, 6, 3).tolist() == [2, 2, 0, 0, 1, 1]


def test_a_round_is_of_one_tier() -> None:
    selection = of_six("tiers(tiers=3)")
    found = [set(selection.select(range(6), 2, server_round)) for server_round in range(1, 60)]
    assert all(chosen in TIERS for chosen in found)
    assert all(tier in found for tier in TIERS)


def test_within_a_tier_all_are_equally_likely() -> None:
    selection = of_six("tiers(tiers=1)")
    for share in frequencies(selection, range(6), 2, 1000).values():
        assert share == pytest.approx(1 / 3, abs=0.05)


def test_a_small_tier_is_filled_up_from_the_nearest() -> None:
    selection = of_six("tiers(tiers=3, credits=1)", losses=(1, 9, 1, 9, 1, 1))
    for server_round in range(1, 40):
        chosen = set(selection.select(range(6), 3, server_round))
        (base,) = (tier for tier in TIERS if tier <= chosen)
        if base != TIERS[1]:  # then the rest comes from the one in the middle
            assert chosen <= base | TIERS[1]


def test_clients_never_asked_come_first() -> None:
    selection = of_six("tiers(tiers=3)")
    for server_round in range(1, 20):
        chosen = selection.select(range(9), 5, server_round)
        assert set(chosen) >= {6, 7, 8}
        assert set(chosen) - {6, 7, 8} in TIERS
        assert set(selection.select(range(9), 2, server_round)) < {6, 7, 8}


def shares_of(losses: list[float | None], requests: list[int], credit: int) -> list[float]:
    """The probabilities of tiers of one client each."""
    history = History()
    for node, (loss, number) in enumerate(zip(losses, requests, strict=True)):
        for _ in range(number):
            history.add(used(node, loss=loss))
    everyone = np.arange(len(losses))
    shares = tier_shares(history.of(everyone.tolist()), everyone, everyone, credit)
    return [float(share) for share in shares]


@pytest.mark.parametrize(
    ("losses", "requests", "expected"),
    [
        ([0.5, 2.0, 1.0], [1, 1, 1], [1 / 6, 3 / 6, 2 / 6]),
        ([1.0, 1.0, 1.0], [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
        ([0.5, None, 1.0], [1, 1, 1], [1 / 6, 3 / 6, 2 / 6]),  # not known: the highest
        ([None, None], [1, 1], [1 / 2, 1 / 2]),
        ([0.5, 2.0, 1.0], [1, 5, 1], [1 / 3, 0, 2 / 3]),  # has used up its credits
        ([0.5, 2.0, 1.0], [4, 5, 1], [1 / 3, 0, 2 / 3]),
        ([0.5, 2.0, 1.0], [4, 5, 5], [1, 0, 0]),
        ([0.5, 2.0, 1.0], [5, 5, 9], [1 / 6, 3 / 6, 2 / 6]),  # new credits for all
    ],
)
def test_tiers_are_drawn_by_rank_of_loss_among_those_with_credits(
    losses: list[float | None], requests: list[int], expected: list[float]
) -> None:
    assert shares_of(losses, requests, credit=5) == pytest.approx(expected)


def test_credits_bound_how_far_tiers_are_apart() -> None:
    selection = of_six("tiers(tiers=3, credits=4)", losses=(9, 1, 5, 1, 5, 9))
    rounds = Counter({tuple(sorted(tier)): 1 for tier in TIERS})  # all were asked once
    for server_round in range(2, 62):
        chosen = selection.select(range(6), 2, server_round)
        rounds[tuple(chosen)] += 1
        tell(selection, [used(n, server_round, seconds=SECONDS[n]) for n in chosen])
        assert max(rounds.values()) <= 4 * (min(rounds.values()) // 4 + 1)
    assert len(rounds) == 3
