"""Worker processes change when clients run, and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from flwr.app import Context, Message
from flwr.common.constant import ErrorCode

from fl_opt.errors import ConfigError, FlOptError
from fl_opt.simulation import VirtualGrid, WorkerPool
from fl_opt.simulation.engines import run_virtual
from fl_opt.simulation.loading import load_app
from fl_opt.simulation.pool import build_runner
from fl_opt.simulation.runner import InProcessRunner
from tests.simulation.apps import answer, client_app, config_of, server_app
from tests.simulation.counting import DEVICE, A, B, pull_all
from tests.simulation.history import grid_on, history
from tests.simulation.worker_app import PATIENCE, Unloadable, app, order, said

APP = "tests.simulation.worker_app:app"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)  # which would do for threads
        with WorkerPool(APP, workers=2) as workers:
            yield workers


def test_the_same_as_in_this_process(pool: WorkerPool) -> None:
    expected = history(InProcessRunner(app), seed=1)
    assert len(expected) > 30
    assert len(expected[-2]) == 10  # type: ignore[arg-type]  # every kind of fault
    assert history(pool, seed=1) == expected
    assert history(pool, seed=1, resumed_after=2)[:-1] == expected[:-1]


@pytest.mark.parametrize("together", [True, False])
def test_clients_asked_at_one_moment_run_at_once(
    pool: WorkerPool, tmp_path: Path, together: bool
) -> None:
    grid = grid_on(pool)
    messages = [order(node_id, "meet", argument=str(tmp_path)) for node_id in (A, B)]
    if together:
        keys = grid.push_messages(messages)
    else:
        keys = [key for message in messages for key in grid.push_messages([message])]
    assert grid.pull_messages(keys) == []
    replies = pull_all(grid, keys)
    assert [reply.has_content() for reply in replies] == [True, True]
    assert len({said(reply, "process") for reply in replies}) == 2


def test_clients_in_workers(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    message = order(A, "count-threads")
    grid = grid_on(pool)
    keys = grid.push_messages([message, order(B, "raise")])
    message.metadata.dst_node_id = B  # too late to change anything
    config_of(message.content)["list"] = [9]
    with caplog.at_level(logging.DEBUG, "fl_opt"):
        failed, reply = pull_all(grid, keys)
    assert (reply.metadata.src_node_id, failed.metadata.src_node_id) == (A, B)
    assert (said(reply, "is-child"), said(reply, "hears-ctrl-c")) == (1, 0)
    assert said(reply, "threads") == 1
    assert failed.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "no data" in str(failed.error.reason)
    told, trace = (record.getMessage() for record in caplog.records)
    assert told == f"client {B} (partition 1) raised ZeroDivisionError: no data"
    assert 'raise ZeroDivisionError("no data")' in trace


def test_a_worker_that_dies_ends_the_run() -> None:
    def serve(grid: VirtualGrid, context: Context) -> None:
        keys = grid.push_messages([order(B, "die")])
        with pytest.raises(FlOptError, match=f"worker process died.*nodes at work: {B}$"):
            pull_all(grid, keys)
        grid.push_messages([order(A, "count")])

    with pytest.raises(FlOptError, match="worker process died"):
        run(serve)


def test_ctrl_c_waits_for_no_client(tmp_path: Path) -> None:
    def serve(grid: VirtualGrid, context: Context) -> None:
        begun = tmp_path / "begun"
        grid.push_messages([order(A, "sleep", argument=str(begun))])
        while not begun.exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    before = workers_alive()
    begin = time.monotonic()
    # Shells have what they start in the background ignore Ctrl-C, and Python leaves it so.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(serve)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert time.monotonic() - begin < PATIENCE
    assert workers_alive() == before


def run(serve: Callable[[VirtualGrid, Context], None]) -> None:
    app = server_app(serve)  # type: ignore[arg-type]
    run_virtual(app, APP, {}, 4, lambda _: DEVICE, workers=2)


def workers_alive() -> set[int]:
    """Process ids of this process's workers."""
    children = psutil.Process().children()
    return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}


def test_an_app_that_a_worker_cannot_load() -> None:
    with WorkerPool(Unloadable(), 1) as workers:
        keys = (grid := grid_on(workers)).push_messages([order(A, "count")])
        with pytest.raises(ConfigError, match=r"cannot load the client app.*no such weights"):
            pull_all(grid, keys)


def test_an_app_that_cannot_be_pickled() -> None:
    def local(message: Message, context: Context) -> Message:
        return answer(message)

    with pytest.raises(ConfigError, match=r"cannot be pickled .*'package.module:attribute'"):
        WorkerPool(client_app(local), 2)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("tests.simulation.worker_app", "not of the form 'package.module:attribute'"),
        (":app", "not of the form"),
        ("tests.no_such_module:app", "No module named 'tests.no_such_module'"),
        ("tests.simulation.worker_app:apq", "no attribute 'apq'"),
        ("tests.simulation.worker_app:PATIENCE", "is float, not a ClientApp"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_an_app_that_is_not_there(place: str, reason: str, workers: int) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        build_runner(place, workers)
    assert repr(place) in str(caught.value)


def test_one_worker_is_this_process() -> None:
    assert load_app(APP) is app
    with build_runner(APP, 1) as runner:
        (reply,) = grid_on(runner).send_and_receive([order(A, "count")])
    assert said(reply, "process") == os.getpid()
