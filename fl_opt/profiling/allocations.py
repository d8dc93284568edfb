"""What torch allocates while something runs, allocation by allocation."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

_DEVICE_TYPES = {
    "cpu": torch._C._autograd.DeviceType.CPU,
    "cuda": torch._C._autograd.DeviceType.CUDA,
}


def allocation_timeline(
    function: Callable[[], object], device: torch.device
) -> NDArray[np.int64]:
    """Run a function under torch's profiler and follow its allocator on one kind of device.

    Parameters
    ----------
    function : callable
        Called once, without arguments.
    device : torch.device
        Of type cpu or cuda.

    Returns
    -------
    ndarray of int64
        Bytes allocated beyond what there was at the start, after each allocation and each
        release; the first entry is 0. The peak is the maximum. Temporaries inside torch's
        operators are in it; the scratch space of libraries beneath them (oneDNN, MKL) is not.

    Raises
    ------
    KeyError
        For another type of device, whose allocator the profiler does not follow.
    """
    kind = _DEVICE_TYPES[device.type]
    # Some builds write a line to standard error for each use; read when it is used first.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        function()
    results = trace.profiler.kineto_results
    events = [
        event
        for event in results.events()
        if event.name() == "[memory]" and event.device_type() == kind
    ]
    events.sort(key=lambda event: event.start_ns())
    return np.cumsum([0, *(event.nbytes() for event in events)], dtype=np.int64)
