from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.reporting.report.scale import linear, logarithmic

numbers = st.lists(st.floats(-1e9, 1e9), max_size=5)


@given(numbers, st.booleans(), st.booleans())
def test_values_and_ticks_of_a_linear_axis_lie_on_it(
    values: list[float], zero: bool, whole: bool
) -> None:
    scale = linear(values, 10.0, 110.0, zero=zero, whole=whole)
    assert all(9.99 <= scale(value) <= 110.01 for value in [*values, *scale.ticks()])
    assert len(scale.ticks()) <= 12


@given(st.lists(st.floats(0.0, 1e12), max_size=5))
def test_values_and_ticks_of_a_logarithmic_axis_lie_on_it(values: list[float]) -> None:
    values = [value for value in values if value > 1e-6]
    scale = logarithmic([*values, 0.0], 110.0, 10.0)
    assert all(9.99 <= scale(value) <= 110.01 for value in [*values, *scale.ticks()])
    assert 1 <= len(scale.ticks()) <= 24


def test_ticks_are_round_numbers() -> None:
    assert linear([0.0, 0.92], 0.0, 1.0, zero=True).ticks() == pytest.approx(
        [0.0, 0.2, 0.4, 0.6, 0.8]
    )
    assert linear([1.0, 12.0], 0.0, 1.0, whole=True).ticks() == [2, 4, 6, 8, 10, 12]
    assert linear([1.0, 2.0], 0.0, 1.0, whole=True).ticks() == [1, 2]
    assert logarithmic([3e3, 4e5], 0.0, 1.0).ticks() == [3e3, 1e4, 3e4, 1e5, 3e5]
