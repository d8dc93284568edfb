"""A SuperNode in a hurry; that it works is tested where deployments are."""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType

import pytest
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.errors import ConfigError, FlOptError
from fl_opt.supernode import run_supernode

LOOP = "flwr.supernode.start_client_internal"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that a SuperNode would have been started with."""
    from flwr.supernode import cli
    from flwr.supernode import start_client_internal as loop

    lines: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(loop, "time", time)
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # put back afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("fl_opt.supernode.cores", lambda: 8)
    monkeypatch.setattr(cli, "flower_supernode", lambda: lines.append(sys.argv))
    return lines


def loop_time() -> ModuleType:
    module: ModuleType = sys.modules[LOOP].time
    return module


def test_sleeps_are_cut_short_and_nothing_else_is_changed(started: list[list[str]]) -> None:
    run_supernode(["--insecure"], 0.01)
    assert started == [["flower-supernode", "--insecure"]]
    begin = time.monotonic()
    loop_time().sleep(30.0)
    assert time.monotonic() - begin < 30.0
    assert loop_time().monotonic is time.monotonic
    assert time.sleep is not loop_time().sleep


def test_options_that_are_not_ours_are_handed_on(started: list[list[str]]) -> None:
    line = ["--poll-seconds", "0.5", "--node-config", "partition-id=1", "--insecure"]
    result = CliRunner().invoke(app, ["supernode", *line])
    assert result.exit_code == 0, result.output
    assert started == [["flower-supernode", *line[2:]]]


@pytest.mark.parametrize(("sharing", "threads"), [("1", "8"), ("3", "2"), ("20", "1")])
def test_clients_train_with_their_share_of_the_cores(
    started: list[list[str]], sharing: str, threads: str
) -> None:
    result = CliRunner().invoke(app, ["supernode", "--share-cores", sharing, "--insecure"])
    assert result.exit_code == 0, result.output
    assert started == [["flower-supernode", "--insecure"]]
    assert os.environ["OMP_NUM_THREADS"] == threads


def test_threads_that_were_chosen_are_left_alone(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run_supernode([], 0.2)
    assert os.environ["OMP_NUM_THREADS"] == "5"
    with pytest.raises(ConfigError, match="share-cores = 0 is not at least 1"):
        run_supernode([], 0.2, 0)
    assert len(started) == 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, 61.0, float("nan")])
def test_an_interval_out_of_range(started: list[list[str]], seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"poll-seconds = .* is not in \[0.01, 60\]"):
        run_supernode([], seconds)
    assert not started


def test_a_flower_that_waits_in_another_way(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(f"{LOOP}.time")
    with pytest.raises(FlOptError, match=r"waits in another way than 1\.42"):
        run_supernode([], 0.2)
    result = CliRunner().invoke(app, ["supernode"])
    assert result.exit_code == 2
    assert result.output.startswith("error: flwr ")
    assert not started
