"""Traces: valid by the format, with the parts of a round where they belong."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.profiling.rounds import ClientRecord, RoundRecord
from fl_opt.reporting import RunRecorder, load_run
from fl_opt.reporting.trace import trace
from run_simulation import cli, run
from tests.reporting.runs import settings

SLACK = 0.01  # microseconds


def check_format(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Check what "Trace Event Format" asks of JSON objects; return the spans."""
    events = json.loads(json.dumps(found, allow_nan=False))["traceEvents"]
    for event in events:
        assert event["ph"] in ("X", "M")
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
        else:
            assert event["name"] in ("process_name", "thread_name")
            assert event["args"]["name"]
    spans = [event for event in events if event["ph"] == "X"]
    rows = defaultdict(list)
    for span in spans:
        rows[span["pid"], span["tid"]].append(span)
    for row in rows.values():
        check_nesting(row)
    return spans


def check_nesting(row: list[dict[str, Any]]) -> None:
    """Spans of one row lie side by side or within each other."""
    open_until: list[float] = []
    for span in row:
        start, end = span["ts"], span["ts"] + span["dur"]
        while open_until and open_until[-1] <= start + SLACK:
            open_until.pop()
        assert not open_until or end <= open_until[-1] + SLACK, span
        open_until.append(end)


@pytest.mark.parametrize("over", [1.0, 1.5])
def test_a_run_on_the_virtual_engine(tmp_path: Path, over: float) -> None:
    config: dict[str, Any] = {
        "num-server-rounds": 4,
        "data.max-examples": 300,
        "simulation.num-supernodes": 6,
        "simulation.spread": 1.0,
        "round.clients": 3,
        "round.over-selection": over,
    }
    summary = run(config, output=tmp_path / "run", quiet=True)
    found = trace(load_run(tmp_path / "run"))
    spans = check_format(found)
    assert found["otherData"] == {"run": "run", "clock": "virtual"}
    names = [span["name"] for span in spans]
    rounds = sorted(name for name in names if name.startswith("round "))
    assert rounds == [f"round {number}" for number in range(5)]
    answers = [span for span in spans if span["name"].startswith("answer")]
    assert len(answers) == summary.participants
    for part in ("download", "compute", "upload"):
        assert names.count(part) == len(answers)
    for answer in answers:
        row = [span for span in spans if (span["pid"], span["tid"]) == (2, answer["tid"])]
        inside = [
            span["dur"]
            for span in row
            if not span["name"].startswith("answer")
            and answer["ts"] - SLACK <= span["ts"] <= answer["ts"] + answer["dur"]
        ]
        assert sum(inside[:3]) == pytest.approx(answer["dur"], rel=0.05)


def test_a_run_on_a_real_network(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="flower", resume=False)
    recorder.on_start(4)
    recorder.on_round(RoundRecord(0, wall_seconds=0.5))
    clients = [
        ClientRecord(7, seconds=3.0, arrived=3.2, train_seconds=2.0, encode_seconds=0.5),
        ClientRecord(8, seconds=3.0, arrived=3.0, error="refused"),
        ClientRecord(9),
    ]
    parts = {"broadcast": 0.25, "wait": 3.0, "decode-aggregate": 0.25, "train": 2.0}
    recorder.on_round(RoundRecord(1, wall_seconds=4.0, parts=parts, clients=clients))
    spans = {span["name"]: span for span in check_format(trace(load_run(tmp_path / "four")))}
    assert (spans["round 1"]["ts"], spans["round 1"]["dur"]) == (0.5e6, 4e6)
    assert (spans["wait"]["ts"], spans["wait"]["dur"]) == (0.75e6, 3e6)
    assert (spans["answer, round 1"]["ts"], spans["answer, round 1"]["dur"]) == (0.7e6, 3e6)
    assert (spans["train"]["ts"], spans["train"]["dur"]) == (1.2e6, 2e6)
    assert spans["encode"]["ts"] == 3.2e6
    assert len(spans) == 8


def test_work_that_began_before_the_run_moves_everything(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="flower", resume=False)
    recorder.on_start(4)
    late = ClientRecord(7, seconds=3.0, arrived=1.0, train_seconds=1.0)
    recorder.on_round(RoundRecord(1, wall_seconds=2.0, clients=[late]))
    spans = {s["name"]: s for s in check_format(trace(load_run(tmp_path / "four")))}
    assert spans["answer, round 1"]["ts"] == 0.0
    assert spans["round 1"]["ts"] == 2e6


def test_the_command_writes_it(tmp_path: Path) -> None:
    run({"num-server-rounds": 1}, output=tmp_path / "run", quiet=True)
    path = tmp_path / "trace.json"
    result = CliRunner().invoke(app, ["trace", str(tmp_path / "run"), "-o", str(path)])
    assert result.exit_code == 0
    assert result.output == f"wrote {path}\n"
    assert check_format(json.loads(path.read_text()))
    wrong = CliRunner().invoke(app, ["trace", str(tmp_path), "-o", str(path)])
    assert wrong.exit_code == 2
    assert wrong.output.startswith(f"error: {tmp_path}")


def test_a_run_writes_its_own(tmp_path: Path) -> None:
    settings = ["-c", "num-server-rounds=1", "--output", str(tmp_path / "run"), "--json"]
    path = tmp_path / "new" / "trace.json"
    result = CliRunner().invoke(cli, [*settings, "--trace", str(path)])
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text()) == trace(load_run(tmp_path / "run"))
    other = CliRunner().invoke(
        app, ["trace", str(tmp_path / "run"), "-o", str(tmp_path / "again.json"), "--json"]
    )
    assert json.loads(other.output) == [str(tmp_path / "again.json")]


def test_a_trace_that_cannot_be_written_loses_no_run(tmp_path: Path) -> None:
    settings = ["-c", "num-server-rounds=1", "--output", str(tmp_path / "run"), "--json"]
    result = CliRunner().invoke(cli, [*settings, "--trace", str(tmp_path)])
    assert result.exit_code == 2
    assert f"--trace {tmp_path}: Is a directory" in result.output
    assert load_run(tmp_path / "run").records
