from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.reporting import format_bytes, format_ratio, format_seconds

SCALES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1234, "1.23 kB"),
        (45_678, "45.7 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_044_880, "1.04 MB"),
        (12.8e9, "12.8 GB"),
        (5e15, "5,000 TB"),
    ],
)
def test_bytes_have_three_digits_and_a_decimal_unit(count: float, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 10**14))
def test_bytes_read_back_within_rounding(count: int) -> None:
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) (\w+)", format_bytes(count))
    assert found
    assert float(found[1]) * SCALES[found[2]] == pytest.approx(count, rel=0.0051)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0312, "31 ms"),
        (0.9996, "1.00 s"),
        (1.25, "1.25 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "-"), (1.0, "1.00x"), (51.84, "51.8x"), (352.4, "352x"), (1155.0, "1,155x")],
)
def test_ratio(ratio: float | None, text: str) -> None:
    assert format_ratio(ratio) == text
