"""The machine's cores, shared out among clients: threads for each, and worker processes.

A client trains with the same number of threads wherever it runs, as sums of floats depend on
it: one, unless the environment variable ``OMP_NUM_THREADS`` says otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


def threads_per_client() -> int:
    """Return how many threads a client's training has."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(int(text), 1) if text.isdecimal() else 1


def worker_count(wanted: int, num_clients: int) -> int:
    """Return how many worker processes there are to be.

    Parameters
    ----------
    wanted : int
        0: as many as there are cores for.
    num_clients : int
        More than these would have nothing to do.
    """
    if not wanted:
        wanted = max(cores() // threads_per_client(), 1)
    return min(wanted, num_clients)


@contextmanager
def client_threads() -> Iterator[None]:
    """Give torch, and what numpy multiplies with, the threads of a client.

    Afterwards they have those that they had before. A torch that is loaded meanwhile keeps the
    threads of a client.
    """
    with _blas().limit(limits=threads_per_client(), user_api="blas"), _torch_threads():
        yield


def _blas() -> ThreadpoolController:
    """Return the libraries that are loaded; to look for them takes milliseconds."""
    return _libraries(len(sys.modules))


@lru_cache(maxsize=1)
def _libraries(_num_modules: int) -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _torch_threads() -> Iterator[None]:
    count, torch = threads_per_client(), sys.modules.get("torch")
    if torch is None:  # which takes seconds to load, and not every app needs it
        with _environment("OMP_NUM_THREADS", str(count)):
            yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while, for libraries that read it when loaded."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
