"""What reports tell about clients."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_opt.errors import CheckpointError
from strategies.selection.history import History, filled
from tests.strategies.selection.reports import failed, used

UNKNOWN = math.nan


def test_the_last_report_counts_and_requests_add_up() -> None:
    history = History()
    history.add(used(7, 1, seconds=4.0, num_examples=20, loss=2.0, update_norm=0.5))
    history.add(failed(7, 2))
    history.add(failed(7, 5, seconds=9.0))
    history.add(failed(8, 3, seconds=6.0))
    known = history.of([8, 7, 1])
    assert known.requests.tolist() == [1, 3, 0]
    assert known.updates.tolist() == [0, 1, 0]
    assert known.failures.tolist() == [1, 2, 0]
    assert known.last_round.tolist() == [3, 5, 0]
    # A failed request takes at least as long as it was waited for.
    np.testing.assert_array_equal(known.seconds, [6.0, 9.0, UNKNOWN])
    np.testing.assert_array_equal(known.num_examples, [UNKNOWN, 20, UNKNOWN])
    np.testing.assert_array_equal(known.loss, [UNKNOWN, 2.0, UNKNOWN])
    np.testing.assert_array_equal(known.update_norm, [UNKNOWN, 0.5, UNKNOWN])

    history.add(used(7, 4, seconds=3.0, num_examples=30, loss=1.0))  # a late one
    known = history.of([7])
    assert (known.failures[0], known.last_round[0], known.seconds[0]) == (0, 5, 3)
    assert (known.num_examples[0], known.loss[0], known.update_norm[0]) == (30, 1, 0.5)


def test_what_is_no_number_leaves_what_was_known_and_what_is_huge_is_cut() -> None:
    history = History()
    history.add(used(1, loss=2.0))
    history.add(used(1, loss=math.nan, num_examples=0, update_norm=math.inf))
    known = history.of([1])
    assert (known.loss[0], known.num_examples[0], known.update_norm[0]) == (2.0, 10, 1e30)
    history.add(used(1, loss=-math.inf, num_examples=10**400))
    known = history.of([1])
    assert (known.loss[0], known.num_examples[0]) == (-1e30, 1e30)


def test_filled() -> None:
    some = np.array([1.0, UNKNOWN, 3.0])
    assert filled(some, 7.0).tolist() == [1.0, 2.0, 3.0]
    assert filled(np.full(2, UNKNOWN), 7.0).tolist() == [7.0, 7.0]
    assert filled(np.empty(0), 7.0).tolist() == []


@pytest.mark.parametrize(
    "change",
    [
        {"loss": [1.0]},
        {"loss": [1.0, "x"]},
        {"loss": None},
        {"nodes": [1, 1]},
        {"nodes": ["one", 2]},
        {"nodes": 3},
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, object]) -> None:
    history = History()
    history.add(used(1))
    history.add(used(2))
    with pytest.raises(CheckpointError, match="history of clients is damaged"):
        History.from_state({**history.state(), **change})
