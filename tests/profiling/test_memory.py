from __future__ import annotations

import subprocess
import sys

import numpy as np
import psutil
import pytest

from fl_opt.profiling import peak_memory_bytes

MEBIBYTE = 1024**2


def test_covers_what_is_resident_now() -> None:
    resident = psutil.Process().memory_info().rss
    assert 0.9 * resident <= peak_memory_bytes() < psutil.virtual_memory().total


def test_rises_with_use_and_stays_when_memory_is_freed() -> None:
    before = peak_memory_bytes()
    resident = psutil.Process().memory_info().rss
    needed = before - resident + 64 * MEBIBYTE
    block = np.ones(needed, np.uint8)
    peak = peak_memory_bytes()
    del block
    assert peak - before == pytest.approx(64 * MEBIBYTE, rel=0.2)
    assert peak_memory_bytes() == pytest.approx(peak, rel=0.01)  # the kernel counts in batches


@pytest.mark.skipif(sys.platform != "linux", reason="getrusage elsewhere has its own rules")
def test_a_small_process_started_by_a_large_one_is_small() -> None:
    block = np.ones(256 * MEBIBYTE, np.uint8)
    code = "from fl_opt.profiling.memory import peak_memory_bytes; print(peak_memory_bytes())"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(out.stdout) < block.nbytes
