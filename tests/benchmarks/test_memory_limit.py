"""The benchmark of the memory limit keeps what it claims, on a smaller scale."""

from __future__ import annotations

import sys

import pytest

from benchmarks.memory_limit import as_table, compare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of another process"),
]


def test_half_of_the_memory_is_enough_seen_from_outside() -> None:
    free, checkpoints, half = compare("blocks", batch=768, steps=2)
    assert free.passes == checkpoints.passes == 1
    assert half.limit_mb <= free.peak_mb / 2
    assert half.peak_mb <= half.limit_mb
    assert half.passes > 1
    assert checkpoints.loss == pytest.approx(free.loss, rel=1e-5)
    assert half.loss == pytest.approx(free.loss, rel=1e-5)
    assert checkpoints.peak_mb - checkpoints.before_mb < (free.peak_mb - free.before_mb) / 1.5
    assert as_table([free, checkpoints, half]).row_count == 3
