from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from fl_opt.profiling import memory
from fl_opt.profiling.memory import (
    peak_memory_bytes,
    resident_bytes,
    restart_peak,
    return_freed_memory,
)
from fl_opt.profiling.phases import phase_memory

MEBIBYTE = 1024**2
CAN_RESTART = restart_peak() is not None

needs_restart = pytest.mark.skipif(
    not CAN_RESTART, reason="the kernel's mark cannot begin anew"
)


def use(mebibytes: int) -> None:
    """Use memory and free it; so large a block goes back to the system at once."""
    np.ones(mebibytes * MEBIBYTE, np.uint8)


@needs_restart
def test_each_phase_has_a_peak_of_its_own() -> None:
    with phase_memory("large") as large:
        use(192)
    with phase_memory("small") as small:
        use(64)
    assert (large.name, large.exact, small.exact) == ("large", True, True)
    assert large.added_bytes == pytest.approx(192 * MEBIBYTE, rel=0.1)
    assert small.added_bytes == pytest.approx(64 * MEBIBYTE, rel=0.1)
    assert large.peak_bytes == large.resident_bytes + large.children_bytes


@needs_restart
def test_the_process_keeps_its_own_peak() -> None:
    use(192)
    before = peak_memory_bytes()
    with phase_memory("small"):
        pass
    assert peak_memory_bytes() >= before
    assert resident_bytes() < before - 128 * MEBIBYTE


@needs_restart
def test_phases_may_be_inside_each_other() -> None:
    with phase_memory("all") as outer:
        use(192)
        with phase_memory("second half") as inner:
            use(64)
        use(16)
    assert outer.added_bytes == pytest.approx(192 * MEBIBYTE, rel=0.1)
    assert inner.added_bytes == pytest.approx(64 * MEBIBYTE, rel=0.1)


@needs_restart
def test_a_phase_that_fails_is_measured_and_over() -> None:
    def fail() -> None:
        use(64)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), phase_memory("fails") as failed:
        fail()
    assert failed.added_bytes == pytest.approx(64 * MEBIBYTE, rel=0.1)
    after = failed.resident_bytes
    use(192)
    with phase_memory("next"):
        pass
    assert failed.resident_bytes == after


def test_samples_stand_in_where_the_mark_cannot_begin_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "no" / "such" / "file")
    assert restart_peak() is None
    use(256)  # before: must not count
    sampled = threading.Event()
    with phase_memory("sampled") as phase:
        block = np.ones(64 * MEBIBYTE, np.uint8)
        sampled.wait(0.3)
        del block
    assert not phase.exact
    assert phase.added_bytes == pytest.approx(64 * MEBIBYTE, rel=0.2)


def test_children_are_counted_while_they_live() -> None:
    others = psutil.Process().children(recursive=True)  # of other tests
    before = sum(child.memory_info().rss for child in others)
    code = "block = b'x' * 67108864; print('ready', flush=True); input()"
    with (
        phase_memory("parent") as phase,
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        threading.Event().wait(0.3)
        child.communicate(b"\n")
    assert 64 * MEBIBYTE < phase.children_bytes - before < 200 * MEBIBYTE
    assert phase.peak_bytes == phase.resident_bytes + phase.children_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc_trim")
def test_freed_memory_goes_back_to_the_system() -> None:
    small = [bytes(64 * 1024) for _ in range(2048)]  # in the heap: too small for blocks of own
    keeps_the_heap_from_shrinking = bytes(64 * 1024)
    del small
    before = resident_bytes()
    return_freed_memory()
    assert before - resident_bytes() > 64 * MEBIBYTE
    assert keeps_the_heap_from_shrinking
