"""Clients whose data is worth the time they take."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strategies.selection import Report, build_selection
from strategies.selection.history import History, Known
from strategies.selection.oort import Oort, sample_best, statistical_utility, utilities
from tests.strategies.selection.reports import failed, frequencies, tell, used


def known(reports: list[Report], number: int) -> Known:
    history = History()
    for report in reports:
        history.add(report)
    return history.of(range(number))


def test_statistical_utility_is_examples_times_loss() -> None:
    found = statistical_utility(
        known([used(0, num_examples=20, loss=0.5), used(1, num_examples=5, loss=4.0)], 2)
    )
    assert found.tolist() == [10.0, 20.0]


def test_who_told_no_loss_is_average() -> None:
    reports = [used(0, loss=1.0), used(1, loss=3.0), used(2, num_examples=99), failed(3)]
    assert statistical_utility(known(reports, 4)).tolist() == [10.0, 30.0, 20.0, 20.0]
    assert statistical_utility(known([used(0), failed(1)], 2)).tolist() == [0.0, 0.0]


def test_utility_is_the_formula_of_the_paper() -> None:
    reports = [
        used(0, 4, seconds=2.0, num_examples=10, loss=2.0),
        used(1, 9, seconds=4.0, num_examples=10, loss=1.0),
        used(2, 1, seconds=8.0, num_examples=10, loss=4.0),
    ]
    settings = Oort(alpha=1.5, clip=100.0)
    found = utilities(known(reports, 3), 16, settings, 50.0)  # T is the median, 4
    bonus = [math.sqrt(0.1 * math.log(16) / last_round) for last_round in (4, 9, 1)]
    expected = [
        20 / 40 + bonus[0],
        10 / 40 + bonus[1],
        (40 / 40 + bonus[2]) * (4 / 8) ** 1.5,
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_utilities_are_clipped_at_a_percentile() -> None:
    losses = [float(n) for n in range(1, 101)] + [1e9]
    reports = [used(n, 1, loss=loss) for n, loss in enumerate(losses)]
    found = utilities(known(reports, 101), 1, Oort(), 100.0)  # ln 1 = 0: no second term
    np.testing.assert_allclose(found, np.minimum(np.arange(1, 102), 99) / 99)


def test_slowness_costs_nothing_with_alpha_zero_or_when_there_is_time() -> None:
    reports = [used(0, seconds=1.0, loss=1.0), used(1, seconds=9.0, loss=1.0)]
    for settings, pace in ((Oort(alpha=0.0), 0.0), (Oort(), 100.0)):
        assert utilities(known(reports, 2), 1, settings, pace).tolist() == [1.0, 1.0]
    assert utilities(known(reports, 2), 1, Oort(), 0.0).tolist() == [1.0, (1 / 9) ** 2]


def test_who_never_answers_is_slow_and_no_reason_to_wait() -> None:
    reports = [used(n, seconds=1.0 + n, loss=1.0) for n in range(3)]
    reports += [failed(n, seconds=math.inf) for n in range(3, 9)]
    found = utilities(known(reports, 9), 1, Oort(), 100.0)
    assert found[:3].tolist() == [1.0] * 3
    assert (found[3:] < 1e-50).all()


def test_the_best_and_those_close_to_them_are_drawn_by_utility() -> None:
    utility = np.array([0.94, 1.0, 0.1, 2.0, 0.96])
    generator = np.random.default_rng(1)
    drawn = np.zeros(5)
    for _ in range(1000):
        drawn[sample_best(generator, utility, 2, 0.95)] += 1
    assert drawn[0] == drawn[2] == 0  # below 0.95 times the second best
    # Successive draws of two from 1, 2 and .96: the probability that each is left out.
    total = 3.96
    for index, one, other in ((1, 2.0, 0.96), (3, 1.0, 0.96), (4, 1.0, 2.0)):
        missed = one / total * other / (total - one) + other / total * one / (total - other)
        assert drawn[index] / 1000 == pytest.approx(1 - missed, abs=0.05)


def test_the_share_of_exploration_decays_to_its_floor() -> None:
    settings = Oort()
    assert settings.exploring_share(1) == 0.9
    assert settings.exploring_share(11) == pytest.approx(0.9 * 0.95**10)
    assert settings.exploring_share(30) == pytest.approx(0.2033, abs=1e-4)
    assert settings.exploring_share(31) == settings.exploring_share(10**6) == 0.2


@pytest.mark.parametrize(("server_round", "share"), [(1, 0.9), (15, 0.4389), (99, 0.2)])
def test_that_share_of_a_round_was_never_asked(server_round: int, share: float) -> None:
    selections = [build_selection("oort", seed) for seed in range(60)]
    explored = 0
    for selection in selections:
        tell(selection, [used(node, loss=1.0) for node in range(20)])
        chosen = selection.select(range(40), 5, server_round)
        assert len(chosen) == 5
        explored += sum(node >= 20 for node in chosen)
    assert explored / 300 == pytest.approx(share, abs=0.05)


def test_exploration_takes_over_where_there_is_nothing_to_exploit_and_back() -> None:
    selection = build_selection("oort(exploration=0, exploration_floor=0)", seed=1)
    selection.observe(used(0, loss=1.0))
    chosen = selection.select(range(6), 3, 1)
    assert len(chosen) == 3
    assert 0 in chosen
    selection = build_selection("oort(exploration=1, exploration_floor=1)", seed=1)
    tell(selection, [used(node, loss=1.0) for node in range(5)])
    assert 5 in selection.select(range(6), 3, 1)


def test_the_valuable_and_fast_are_exploited() -> None:
    spec = "oort(exploration=0, exploration_floor=0, pace=25)"
    selection = build_selection(spec, seed=1)
    tell(
        selection,
        [
            used(n, seconds=10.0 if n % 2 else 1.0, loss=4.0 if n < 4 else 1.0)
            for n in range(12)
        ],
    )
    # Nodes 0 and 2 are both; next come, at 95% of the third best, all fast ones.
    shares = frequencies(selection, range(12), 2, 50)
    assert shares[0] == shares[2] == 1.0
    shares = frequencies(selection, range(12), 3, 50)
    assert all((shares[n] > 0.0) == (n % 2 == 0) for n in range(12))


def test_who_gave_many_updates_is_left_out_while_there_are_others() -> None:
    spec = "oort(exploration=0, exploration_floor=0, max_updates=2)"
    selection = build_selection(spec, seed=1)
    tell(selection, [used(n, loss=9.0 - n) for n in range(6)])
    assert 0 in selection.select(range(6), 1, 2)
    tell(selection, [used(0, 2, loss=9.0), failed(1, 2)])
    shares = frequencies(selection, range(6), 2, 50, first=3)
    assert shares[0] == 0.0
    assert shares[1] > 0.0  # its second request brought no update
    tell(selection, [used(n, 3, loss=9.0 - n) for n in range(1, 5)])
    for server_round in range(4, 20):
        chosen = selection.select(range(6), 3, server_round)
        assert 5 in chosen
        assert len(chosen) == 3


def test_the_pacer_lets_slow_clients_in_when_losses_fall() -> None:
    spec = "oort(exploration=0, exploration_floor=0, pace=0, pace_step=100, pace_window=2)"
    selection = build_selection(spec, seed=1)
    tell(selection, [used(0, 1, seconds=1.0, loss=2.0), used(1, 2, seconds=50.0, loss=8.0)])
    assert selection.select([0, 1], 1, 3) == [0]
    tell(selection, [used(0, 3, seconds=1.0, loss=2.0), used(0, 5, seconds=1.0, loss=2.0)])
    assert selection.state()["pacer"]["percentile"] == 100.0
    assert selection.select([0, 1], 1, 5) == [1]
