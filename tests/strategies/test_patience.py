"""Clients are left alone while they may be at work, and not for longer."""

from __future__ import annotations

import math

from strategies.patience import FACTOR, Patience


def test_nobody_is_given_up_before_anybody_has_answered() -> None:
    assert not Patience().is_over(1e9)


def test_the_slowest_reply_counts() -> None:
    patience = Patience()
    for seconds in (2.0, 5.0, 1.0, math.nan, math.inf):
        patience.observe(seconds)
    assert patience.longest == 5.0
    assert not patience.is_over(FACTOR * 5.0)
    assert patience.is_over(FACTOR * 5.0 + 0.1)
