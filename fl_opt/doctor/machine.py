"""Cores, memory, graphics card, and how fast this machine computes in fewer bits."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator

import psutil
import torch

from fl_opt.doctor.check import Check
from fl_opt.simulation.resources import cores

_SIZE, _TIMES = 512, 7
_FEW_MB = 2000


def machine() -> Iterator[Check]:
    """Look at what there is to compute with."""
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Check("machine", "cores", "ok", f"{cores()}, OMP_NUM_THREADS {threads or 'not set'}")
    free = psutil.virtual_memory().available // 10**6
    if free < _FEW_MB:
        mend = "set train.memory-limit-mb, or end other programs"
        yield Check("machine", "memory", "note", f"{free} MB free", mend)
    else:
        yield Check("machine", "memory", "ok", f"{free} MB free")
    if torch.cuda.is_available():
        yield Check("machine", "gpu", "ok", torch.cuda.get_device_name())
        device = torch.device("cuda")
    else:
        yield Check("machine", "gpu", "ok", f"none; torch {torch.__version__} uses the CPU")
        device = torch.device("cpu")
    yield _fewer_bits(device)


def _fewer_bits(device: torch.device) -> Check:
    """Time a product of matrices in bf16 beside fp32."""
    ratio = _seconds(device, torch.float32) / _seconds(device, torch.bfloat16)
    found = f"{ratio:.1f} times the speed of fp32, in a product of matrices"
    mend = "train.precision = 'auto' tries it with your model" if ratio > 1.2 else ""
    return Check("machine", "bf16", "ok", found, mend)


def _seconds(device: torch.device, dtype: torch.dtype) -> float:
    left = torch.ones(_SIZE, _SIZE, device=device, dtype=dtype)
    seconds = []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        product = left @ left
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
        del product
    return statistics.median(seconds[1:])
