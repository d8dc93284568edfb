from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting import (
    Communication,
    Convergence,
    Memory,
    RoundTime,
    RunInfo,
    RunSummary,
    Volume,
    summarize,
)
from tests.reporting.runs import records, settings


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    return RunInfo.collect(settings(tmp_path), "virtual", tmp_path / "four")


@pytest.fixture
def summary(info: RunInfo) -> RunSummary:
    return summarize(info, records())


def test_counts_rounds_and_replies(summary: RunSummary) -> None:
    assert (summary.rounds_planned, summary.rounds_done) == (4, 4)
    assert (summary.participants, summary.failures) == (8, 1)


def test_time_per_round_leaves_out_the_initial_evaluation(summary: RunSummary) -> None:
    assert summary.time == RoundTime(
        wall_mean=2.0,
        wall_median=1.5,
        wall_total=8.5,
        virtual_mean=25.0,
        virtual_median=25.0,
        virtual_total=100.0,
        parts={"train": 0.5, "upload": 2.0, "decode-aggregate": 0.625},
    )


def test_no_virtual_time_on_a_real_network(info: RunInfo) -> None:
    real = [replace(record, virtual_seconds=None) for record in records()]
    time = summarize(info, real).time
    assert (time.virtual_mean, time.virtual_median, time.virtual_total) == (None, None, None)
    assert time.wall_mean == 2.0


def test_communication(summary: RunSummary) -> None:
    assert summary.communication == Communication(
        up=Volume(80, 400, 4000), down=Volume(4000, 5000, 4000)
    )
    up, down, total = (
        summary.communication.up,
        summary.communication.down,
        summary.communication.total,
    )
    assert (up.compression_ratio, up.message_compression_ratio) == (50.0, 10.0)
    assert up.percent_saved == pytest.approx(98.0)
    assert (down.compression_ratio, down.percent_saved) == (1.0, 0.0)
    assert total == Volume(4080, 5400, 8000)
    assert total.compression_ratio == pytest.approx(1.9608, abs=1e-4)
    assert total.percent_saved == pytest.approx(49.0)


def test_nothing_sent_has_no_ratio() -> None:
    nothing = Volume(0, 0, 0)
    assert nothing.compression_ratio is None
    assert nothing.message_compression_ratio is None
    assert nothing.percent_saved is None


def test_memory_is_the_highest_mark(summary: RunSummary) -> None:
    assert summary.memory == Memory(100_000_004, 199_999_999)


def test_memory_that_was_not_measured_is_none(info: RunInfo) -> None:
    assert summarize(info, [RoundRecord(1)]).memory == Memory(None, None)


def test_convergence(summary: RunSummary) -> None:
    assert summary.convergence == Convergence(
        evaluated="central",
        final_accuracy=0.8,
        best_accuracy=0.9,
        best_round=2,
        last_accuracy=0.7625,
        final_loss=0.5,
        target_accuracy=0.8,
        rounds_to_target=2,
    )


def test_last_accuracy_is_the_mean_of_ten_rounds(info: RunInfo) -> None:
    rounds = [RoundRecord(number, accuracy=number / 100) for number in range(1, 31)]
    assert summarize(info, rounds).convergence.last_accuracy == pytest.approx(0.255)


def test_clients_accuracy_counts_where_there_is_no_central_one(info: RunInfo) -> None:
    rounds = [
        RoundRecord(1),
        RoundRecord(2, federated_accuracy=0.7, federated_loss=0.6),
        RoundRecord(3),
        RoundRecord(4, federated_accuracy=0.75, federated_loss=0.5),
    ]
    found = summarize(info, rounds).convergence
    assert found.evaluated == "federated"
    assert (found.final_accuracy, found.best_round, found.final_loss) == (0.75, 4, 0.5)
    assert found.rounds_to_target is None


def test_accuracy_that_is_no_number_is_left_out(info: RunInfo) -> None:
    rounds = [RoundRecord(1, accuracy=0.85), RoundRecord(2, accuracy=float("nan"))]
    found = summarize(info, rounds).convergence
    assert (found.final_accuracy, found.best_accuracy, found.rounds_to_target) == (
        0.85,
        0.85,
        1,
    )


def test_a_run_without_rounds(info: RunInfo) -> None:
    empty = summarize(info, [], status="failed", error="ValueError: no")
    assert (empty.rounds_planned, empty.rounds_done) == (4, 0)
    assert empty.time == RoundTime(None, None, 0.0, None, None, None, {})
    assert empty.convergence.final_accuracy is None
    assert (empty.status, empty.error) == ("failed", "ValueError: no")
    json.dumps(empty.to_dict(), allow_nan=False)


def test_to_dict_is_kebab_case_and_complete(summary: RunSummary) -> None:
    found = summary.to_dict()
    assert found["name"] == "four"
    assert found["engine"] == "virtual"
    assert found["seed"] == 42
    assert found["versions"].keys() >= {"python", "fl-opt", "flwr", "numpy"}
    assert found["settings"]["uplink.codec"] == "topk(0.02) | ternary"
    assert found["time-seconds"]["wall-median"] == 1.5
    assert found["time-seconds"]["parts"] == {
        "train": 0.5,
        "upload": 2.0,
        "decode-aggregate": 0.625,
    }
    assert found["communication"]["up"] == {
        "payload-bytes": 80,
        "message-bytes": 400,
        "dense-bytes": 4000,
        "compression-ratio": 50.0,
        "message-compression-ratio": 10.0,
        "percent-saved": 98.0,
    }
    assert found["communication"]["total"]["payload-bytes"] == 4080
    assert found["memory"] == {
        "server-peak-bytes": 100_000_004,
        "client-peak-bytes": 199_999_999,
    }
    assert found["convergence"]["rounds-to-target"] == 2
    assert not any("_" in key for key in found)
