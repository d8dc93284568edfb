"""A run that was cut short goes on to the very model that it would have reached."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

import run_simulation
from fl_opt.checkpoint import Checkpoints
from fl_opt.errors import CheckpointError
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.simulation.faults import FaultPlan
from tests.strategies.cutting import CutError, bits, cut_and_resumed, evaluate_until, facts
from tests.strategies.federation import run

ROUNDS = 7
FAULTS = FaultPlan(
    seed=4,
    lose_down=0.1,
    lose_up=0.15,
    duplicate_down=0.15,
    duplicate_up=0.15,
    delay=0.5,
    delay_seconds=8.0,
    restart=0.1,
    forget=0.1,
    corrupt_down=0.1,
    corrupt_up=0.1,
)
WAYS = {
    "full": DownlinkOptions("full", "fp32"),
    "shared": DownlinkOptions("shared", "ecsq(3.0)", "seed"),
    "shared, one step size": DownlinkOptions("shared", "ecsq(step=0.02)", "snapshot"),
    "per client": DownlinkOptions("per-client", "int4", "seed"),
    "auto": DownlinkOptions("auto", "topk(0.2) | ternary", "snapshot"),
}
OPTIONS: dict[str, Any] = {
    "codec": "topk(0.2) | uniform(4, 8, stochastic)",
    "server_optimizer": "sgd(eta=0.7, momentum=0.6)",
    "num_clients": 9,
    "clients_per_round": 5,
    "timeout": 5.0,
    "num_rounds": ROUNDS,
    "evaluate_every": 2,
    "seed": 5,
}


@pytest.mark.parametrize("faults", [None, FAULTS], ids=["quiet", "faulty"])
@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_ends_in_the_same_model(
    way: str, faults: FaultPlan | None, tmp_path: Path
) -> None:
    options = {**OPTIONS, "downlink": WAYS[way], "faults": faults}
    whole, record = run(**options, evaluate_fn=evaluate_until(ROUNDS))
    if faults is not None:
        assert sum(r.stale for r in record.rounds)
        assert sum(r.returned for r in record.rounds)
        assert sum(r.failures for r in record.rounds)
    result, told = cut_and_resumed(options, (2, 3, ROUNDS), tmp_path)
    assert bits(result.arrays) == bits(whole.arrays)
    assert [r.server_round for r in told] == list(range(ROUNDS + 1))
    assert facts(told) == facts(record.rounds)
    assert result.evaluate_metrics_serverapp.keys() == set(range(4, ROUNDS + 1))


def test_rounds_since_the_last_checkpoint_are_done_again(tmp_path: Path) -> None:
    options = {**OPTIONS, "downlink": WAYS["auto"], "checkpoint_every": 3, "faults": FAULTS}
    whole, _ = run(**options)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CutError):
        run(**options, evaluate_fn=evaluate_until(5), checkpoints=checkpoints)
    result, record = run(
        **options, evaluate_fn=evaluate_until(ROUNDS), checkpoints=checkpoints, resume=True
    )
    assert [r.server_round for r in record.rounds] == [4, 5, 6, 7]
    assert bits(result.arrays) == bits(whole.arrays)


def test_a_run_that_was_complete_stays_as_it_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    whole, _ = run(**OPTIONS, checkpoints=checkpoints)
    again, record = run(**OPTIONS, checkpoints=checkpoints, resume=True)
    assert bits(again.arrays) == bits(whole.arrays)
    assert record.rounds == []


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**OPTIONS, "downlink": WAYS["auto"], "faults": FAULTS}
    whole, _ = run(**options)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(server_round: int, _arrays: ArrayRecord) -> None:
        space = 100 if server_round in (3, 4) else most  # bytes: too few for any checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (space, most))
        if server_round == 6:
            raise CutError

    checkpoints = Checkpoints(tmp_path)
    try:
        with pytest.raises(CutError):
            run(**options, evaluate_fn=fill, checkpoints=checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    told = [r.getMessage() for r in caplog.records if "no checkpoint" in r.getMessage()]
    assert [line[:8] for line in told] == ["round 3:", "round 4:"]
    assert "File too large" in told[0]
    result, record = run(**options, checkpoints=checkpoints, resume=True)
    assert [r.server_round for r in record.rounds] == [6, 7]
    assert bits(result.arrays) == bits(whole.arrays)


def test_a_disk_that_is_full_from_the_beginning_stops_the_run(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            run(**OPTIONS, checkpoints=Checkpoints(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_resuming_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    whole, _ = run(**OPTIONS)
    result, _ = run(**OPTIONS, checkpoints=Checkpoints(tmp_path), resume=True)
    assert bits(result.arrays) == bits(whole.arrays)


def test_another_downlink_cannot_go_on(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    run(**{**OPTIONS, "num_rounds": 1}, checkpoints=checkpoints)
    for mode in ("shared", "per-client", "auto"):
        with pytest.raises(CheckpointError, match=f"downlink.mode = 'full', not '{mode}'"):
            run(
                **OPTIONS,
                downlink=DownlinkOptions(mode, "int8"),
                checkpoints=checkpoints,
                resume=True,
            )


# --- processes that are killed

CONFIG = (
    "num-server-rounds=6 data.max-examples=240 train.local-epochs=1 checkpoint.every=1 "
    "simulation.num-supernodes=4 round.clients=3 server-optimizer='sgd(momentum=0.5)' "
    "output.save-model=true faults.lose-up=0.1 faults.restart=0.1 evaluate.federated-every=2"
)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_model(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_simulation.run(run_simulation.parse_run_config([CONFIG]), output=whole, quiet=True)
    for lines in (2, 5):  # the first one cuts it short, the second one goes on and is cut, too
        _kill_after(lines, cut)
    config = run_simulation.parse_run_config([CONFIG, "resume=true"])
    summary = run_simulation.run(config, output=cut, quiet=True)
    assert (summary.status, summary.rounds_done) == ("completed", 6)
    with np.load(whole / "model.npz") as expected, np.load(cut / "model.npz") as found:
        assert set(found) == set(expected)
        for name in expected:
            assert found[name].tobytes() == expected[name].tobytes()
    assert [_steady(line) for line in _lines(cut)] == [_steady(line) for line in _lines(whole)]


def _kill_after(lines: int, folder: Path) -> None:
    """Start or resume a run; kill it some time after its record has so many lines."""
    command = [sys.executable, "run_simulation.py", "-c", CONFIG, "-c", "resume=true"]
    process = subprocess.Popen(
        [*command, "--output", str(folder), "--json"], cwd=run_simulation.PROJECT
    )
    deadline = time.monotonic() + 120
    while len(_lines(folder)) < lines:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def _lines(folder: Path) -> list[str]:
    path = folder / "rounds.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def _steady(line: str) -> dict[str, Any]:
    """What a round's record says beside real time and memory."""
    row = json.loads(line)
    for key in ("wall-seconds", "server-peak-memory-bytes", "client-peak-memory-bytes"):
        del row[key]
    for part in set(row["parts"]) - {"download", "compute", "upload"}:
        del row["parts"][part]
    for client in row["clients"]:
        for key in ("train-seconds", "encode-seconds", "peak-memory-bytes"):
            del client[key]
    return dict(row)
