"""How much waiting a round is worth."""

from __future__ import annotations

import pytest

from fl_opt.errors import CheckpointError
from strategies.selection.pacer import Pacer


def test_waits_longer_when_a_window_brings_less_than_the_one_before() -> None:
    pacer = Pacer(percentile=50.0, step=20.0, window=2)
    found = []
    # Two updates a round; windows bring 8, 12, 12, 4, 2, 1, 0.5.
    for server_round, utility in enumerate(
        (2, 2, 3, 3, 3, 3, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125), start=1
    ):
        pacer.add(server_round, utility)
        pacer.add(server_round, utility)
        found.append(pacer.percentile)
    # Looked at when the first update of the next window comes; 100 is the most.
    assert found == [50.0] * 8 + [70.0] * 2 + [90.0] * 2 + [100.0] * 2


def test_late_updates_count_for_the_window_under_way() -> None:
    pacer = Pacer(percentile=50.0, step=20.0, window=2)
    for server_round, utility in ((1, 4.0), (3, 3.0), (2, 1.0), (5, 1.0)):
        pacer.add(server_round, utility)
    assert pacer.percentile == 50.0  # 4, then 3 + 1


def test_a_damaged_state_is_refused() -> None:
    pacer = Pacer(percentile=50.0, step=20.0, window=2)
    with pytest.raises(CheckpointError, match="pacer is damaged"):
        pacer.restore({**pacer.state(), "total": "much"})
