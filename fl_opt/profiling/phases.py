"""Peak memory of a part of the work, such as training or encoding.

Where the numbers come from:

- this process: the kernel's own high-water mark, begun anew for each phase (Linux, see
  :func:`~fl_opt.profiling.memory.restart_peak`); elsewhere samples of what is resident;
- child processes, such as those of a DataLoader: samples, as no mark covers a sum. Pages that
  they share with this process are counted with it and with them;
- CUDA: the statistics of torch's allocator, ``max_memory_allocated`` and
  ``max_memory_reserved``, begun anew for each phase;
- what torch allocates, each allocation for itself: ``fl_opt.profiling.allocations``, which
  slows work down and is not part of a phase.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from fl_opt.profiling.memory import resident_bytes, restart_peak

if TYPE_CHECKING:
    import torch

_SAMPLE_SECONDS = 0.02


@dataclass
class PhaseMemory:
    """What a phase took; complete when the phase is over.

    Attributes
    ----------
    name : str
    start_bytes : int
        Resident memory of this process when the phase began.
    resident_bytes : int
        The highest it rose to.
    children_bytes : int
        The highest sum of the resident memory of its child processes.
    exact : bool
        Whether ``resident_bytes`` is the kernel's mark; else it is the largest of the samples.
    allocated_bytes, reserved_bytes : int
        The highest of torch's allocator on a CUDA device; 0 elsewhere.
    """

    name: str
    start_bytes: int = 0
    resident_bytes: int = 0
    children_bytes: int = 0
    exact: bool = True
    allocated_bytes: int = 0
    reserved_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """Peak of the process with its children: at most this, as the two may not coincide."""
        return self.resident_bytes + self.children_bytes

    @property
    def added_bytes(self) -> int:
        """How far the phase went beyond what was resident when it began."""
        return self.resident_bytes - self.start_bytes


_lock = threading.Lock()
_running: list[PhaseMemory] = []


@contextmanager
def phase_memory(name: str, device: torch.device | None = None) -> Iterator[PhaseMemory]:
    """Measure the peak memory of what happens in the context.

    Phases may be nested, and may overlap in threads: each sees the whole process.

    Parameters
    ----------
    name : str
    device : torch.device, optional
        A CUDA device whose allocator is asked as well; its statistics begin anew, so of
        nested phases only one should name it.
    """
    phase = PhaseMemory(name, start_bytes=resident_bytes())
    cuda = device if device is not None and device.type == "cuda" else None
    if cuda is not None:
        _restart_cuda(cuda)
    _turn(begins=phase)
    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(phase, over), daemon=True)
    sampler.start()
    try:
        yield phase
    finally:
        over.set()
        sampler.join()
        _turn(ends=phase)
        if cuda is not None:
            _read_cuda(phase, cuda)


def _turn(begins: PhaseMemory | None = None, ends: PhaseMemory | None = None) -> None:
    """Give the mark so far to all phases that ran under it, and begin a new one."""
    with _lock:
        mark = restart_peak()
        if begins is not None:
            _running.append(begins)
            begins.resident_bytes = begins.start_bytes
        for phase in _running:
            if mark is None:
                phase.exact = False
            elif phase is not begins:
                phase.resident_bytes = max(phase.resident_bytes, mark)
        if ends is not None:
            _running[:] = [phase for phase in _running if phase is not ends]


def _sample(phase: PhaseMemory, over: threading.Event) -> None:
    process = psutil.Process()
    while not over.wait(_SAMPLE_SECONDS):
        own, children = int(process.memory_info().rss), 0
        for child in process.children(recursive=True):
            with suppress(psutil.Error):  # it may end at any moment
                children += int(child.memory_info().rss)
        with _lock:
            phase.resident_bytes = max(phase.resident_bytes, own)
            phase.children_bytes = max(phase.children_bytes, children)


def _restart_cuda(device: torch.device) -> None:
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)


def _read_cuda(phase: PhaseMemory, device: torch.device) -> None:
    import torch

    torch.cuda.synchronize(device)
    phase.allocated_bytes = torch.cuda.max_memory_allocated(device)
    phase.reserved_bytes = torch.cuda.max_memory_reserved(device)
