"""The memory that this process has really used."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """Return this process' high-water mark of resident memory, in bytes.

    It covers everything since the process began, shared libraries included, and does not
    fall when memory is freed.

    On Linux it is ``VmHWM`` of ``/proc/self/status``: ``getrusage`` there (in KiB) may give
    the peak of the process that this one was started from, which can be much larger. Where
    there is no such file it is that of ``getrusage`` (in bytes on macOS, in KiB elsewhere)
    or, on Windows, the peak working set.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
