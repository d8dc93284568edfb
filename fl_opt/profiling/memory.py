"""The memory that this process has really used."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"

_lock = threading.Lock()
_earlier_peak = 0


def peak_memory_bytes() -> int:
    """Return this process' high-water mark of resident memory, in bytes.

    It covers everything since the process began, shared libraries included, and does not
    fall when memory is freed or :func:`restart_peak` is called.

    On Linux it is ``VmHWM`` of ``/proc/self/status``: ``getrusage`` there (in KiB) may give
    the peak of the process that this one was started from, which can be much larger. Where
    there is no such file it is that of ``getrusage`` (in bytes on macOS, in KiB elsewhere)
    or, on Windows, the peak working set.
    """
    with _lock:
        return max(_earlier_peak, _mark())


def resident_bytes() -> int:
    """Return the resident memory of this process now, in bytes."""
    return int(psutil.Process().memory_info().rss)


def restart_peak() -> int | None:
    """Begin a new high-water mark, from what is resident now.

    Linux only, where writing 5 to ``/proc/self/clear_refs`` does it (proc(5)).

    Returns
    -------
    int or None
        The mark that ends, in bytes: the peak since the last call or the process' beginning.
        None where there is no way to begin a new one.
    """
    global _earlier_peak  # noqa: PLW0603 -- there is one process
    with _lock:
        mark = _mark()
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
        except OSError:
            return None
        _earlier_peak = max(_earlier_peak, mark)
        return mark


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc).

    What an allocator keeps for later counts as resident like what is in use.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _mark() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
