"""Parts of rounds over a run: statistics by hand, and what a real run measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.profiling.rounds import ClientRecord, RoundRecord
from fl_opt.reporting import load_run
from fl_opt.reporting.spans import Span, spans
from run_simulation import run


def test_statistics_are_those_of_all_rounds_and_replies(tmp_path: Path) -> None:
    run({"num-server-rounds": 1}, output=tmp_path / "run", quiet=True)
    found = load_run(tmp_path / "run")
    used = ClientRecord(1, staleness=[0], train_seconds=2.0, encode_seconds=0.5)
    refused = ClientRecord(2, train_seconds=9.0)
    found.records[:] = [
        RoundRecord(1, parts={"wait": 1.0, "train": 99.0}, clients=[used, refused]),
        RoundRecord(2, parts={"wait": 3.0}, clients=[used, used]),
    ]
    wait, train, encode = spans(found)
    assert wait == Span("server", "wait", 2, 2.0, 1.0, np.percentile([1.0, 3.0], 95), 4.0)
    assert (train.side, train.name, train.count, train.total) == ("client", "train", 3, 6.0)
    assert (encode.mean, encode.spread) == (0.5, 0.0)


def test_the_command_prints_what_a_run_measured(tmp_path: Path) -> None:
    summary = run({"num-server-rounds": 2}, output=tmp_path / "run", quiet=True)
    result = CliRunner().invoke(app, ["spans", str(tmp_path / "run"), "--json"])
    found = {span["name"]: span for span in json.loads(result.output)}
    assert found["train"]["count"] == summary.participants
    assert found["broadcast"]["count"] >= 2
    for span in found.values():
        assert span["total"] == pytest.approx(span["mean"] * span["count"])
    shown = CliRunner().invoke(app, ["spans", str(tmp_path / "run")])
    assert all(name in shown.output for name in found)
    wrong = CliRunner().invoke(app, ["spans", str(tmp_path)])
    assert wrong.exit_code == 2
    assert wrong.output.startswith(f"error: {tmp_path}")


def test_nested_parts_with_memory_where_they_are_measured(tmp_path: Path) -> None:
    config = {"num-server-rounds": 2, "profiling.spans": True, "evaluate.federated-every": 1}
    summary = run(config, output=tmp_path / "run", quiet=True)
    found = {(span.side, span.name): span for span in spans(load_run(tmp_path / "run"))}
    for side, name, parts in (
        ("server", "decode-aggregate", {"decode", "add", "step", "encode"}),
        ("client", "train", {"load", "steps"}),
        ("client", "encode", {"feedback", "codec", "keep"}),
    ):
        outer = found[side, name]  # type: ignore[index]
        inside = {n: s for (_, n), s in found.items() if n.startswith(f"{name}/")}
        assert set(inside) == {f"{name}/{part}" for part in parts}
        assert sum(span.total for span in inside.values()) <= outer.total + 1e-3
        assert outer.memory_bytes is not None
    assert found["client", "train/steps"].count == summary.participants
    assert found["client", "evaluate"].count == summary.participants
    names = [name for _, name in found]
    assert names.index("train") < names.index("train/steps")
    shown = CliRunner().invoke(app, ["spans", str(tmp_path / "run")], env={"COLUMNS": "120"})
    assert "  codec " in shown.output


def test_spans_change_nothing_else(tmp_path: Path) -> None:
    plain = run({"num-server-rounds": 2}, output=tmp_path / "a", quiet=True)
    measured = run(
        {"num-server-rounds": 2, "profiling.spans": True}, output=tmp_path / "b", quiet=True
    )
    assert measured.convergence == plain.convergence
    for one, two in zip(
        load_run(tmp_path / "a").records, load_run(tmp_path / "b").records, strict=True
    ):
        assert (one.bytes_up, one.bytes_down) == (two.bytes_up, two.bytes_down)
        assert one.spans == []
        assert two.message_bytes_up >= one.message_bytes_up
