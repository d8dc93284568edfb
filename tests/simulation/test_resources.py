"""Cores are shared out by the environment, and torch gets its own threads back."""

from __future__ import annotations

import contextlib
import os
import sys

import pytest
import threadpoolctl
import torch

from fl_opt.simulation import resources
from fl_opt.simulation.resources import client_threads, threads_per_client, worker_count


@pytest.mark.parametrize(
    ("text", "threads"), [(None, 1), ("3", 3), (" 4,2", 4), ("0", 1), ("-2", 1), ("many", 1)]
)
def test_threads(text: str | None, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if text is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    before = torch.get_num_threads()
    with contextlib.suppress(ZeroDivisionError), client_threads():
        assert torch.get_num_threads() == threads == threads_per_client()
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    assert os.environ.get("OMP_NUM_THREADS") == text


@pytest.mark.parametrize("text", ["1", "2"])
def test_numpy_multiplies_with_the_same_threads(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads() -> set[int]:
        return {
            library["num_threads"]
            for library in threadpoolctl.threadpool_info()
            if library["user_api"] == "blas"
        }

    monkeypatch.setenv("OMP_NUM_THREADS", text)
    before = threads()
    assert before, "no library that threadpoolctl knows"
    with client_threads():
        assert threads() == {int(text)}
    assert threads() == before


@pytest.mark.parametrize("text", [None, "3"])
def test_threads_of_a_torch_that_is_loaded_by_a_client(
    text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    if text is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    with client_threads():
        assert os.environ["OMP_NUM_THREADS"] == (text or "1")
    assert os.environ.get("OMP_NUM_THREADS") == text


@pytest.mark.parametrize(
    ("wanted", "threads", "clients", "count"),
    [
        (1, 1, 100, 1),
        (3, 1, 100, 3),
        (20, 1, 100, 20),
        (20, 1, 10, 10),
        (0, 1, 100, 8),
        (0, 3, 100, 2),
        (0, 16, 100, 1),
        (0, 1, 5, 5),
    ],
)
def test_workers(
    wanted: int,
    threads: int,
    clients: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    monkeypatch.setattr(resources, "cores", lambda: 8)
    assert worker_count(wanted, clients) == count


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= resources.cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert resources.cores() == os.cpu_count()
