from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.peers import __main__ as command
from benchmarks.peers import environments, report
from benchmarks.peers.adapters import ours
from benchmarks.peers.environments import PEERS, Peer, reason
from benchmarks.peers.vectors import synthetic

TOY = Peer("toy", "tests.benchmarks.toy_peer")


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    path = tmp_path / "small.npy"
    values = np.random.default_rng(0).standard_normal(5000) * 1e-3
    np.save(path, values.astype(np.float32))
    return path


def row(peer: str, codec: str, **values: Any) -> dict[str, Any]:
    defaults = {"bytes": 1000, "nmse": 0.1, "encode-copies": 10.0, "decode-copies": 5.0}
    return {"peer": peer, "codec": codec, "vector": "v", "kind": "8 bit"} | defaults | values


def test_peer_that_works_gives_a_row_for_each_codec(vector: Path, tmp_path: Path) -> None:
    half, never, in_place = command.compare(TOY, [vector], tmp_path, repeats=2)
    assert half["bytes"] == 10_000
    assert half["nmse"] == pytest.approx(4e-8, rel=0.5)
    assert half["version"] == "0.9"
    assert half["repeats"] == 2
    assert min(half[f"{what}-seconds"] for what in ("copy", "encode", "decode")) > 0
    if sys.platform == "linux":
        assert half["encode-memory"] >= 0
    assert never["failed"] == "RuntimeError: needs [another] machine"
    assert in_place["failed"] == "ValueError: encoding changes the vector"


def test_failed_install_is_a_row(vector: Path, tmp_path: Path) -> None:
    absent = Peer("absent", TOY.adapter, alone=("./no-such-folder/absent-1.0.tar.gz",))
    (only,) = command.compare(absent, [vector], tmp_path, repeats=1)
    assert only["peer"] == "absent"
    assert only["failed"].startswith("not installable here: ")
    assert "no-such-folder" in only["failed"]
    assert "\n" not in only["failed"]


def test_failed_import_is_a_row(vector: Path, tmp_path: Path) -> None:
    broken = Peer("broken", "tests.benchmarks.no_such_adapter")
    (only,) = command.compare(broken, [vector], tmp_path, repeats=1)
    assert "no_such_adapter" in only["failed"]
    assert report.problems([only]) == [f"broken: {only['failed']}"]


def test_command_prints_tables_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PEERS", (TOY, Peer("broken", "tests.benchmarks.missing")))
    monkeypatch.setattr(command, "write_all", lambda folder, size: _write_one(tmp_path, size))
    output = tmp_path / "result.json"
    monkeypatch.setattr(
        sys, "argv", ["peers", "--quick", f"--cache={tmp_path}", f"--output={output}"]
    )
    command.main()
    printed = capsys.readouterr().out
    assert "gaussian: 100,000 entries" in printed
    assert "not measured here: broken" in printed
    result = json.loads(output.read_text())
    assert result["sizes"] == {"gaussian": 100_000}
    assert result["rows"][0]["bits-per-parameter"] == 16.0
    assert result["verdicts"][0]["ours"] is None  # the command was not asked for fl-opt


def _write_one(folder: Path, size: int) -> list[Path]:
    name, values = next(synthetic(size))
    np.save(folder / f"{name}.npy", values)
    return [folder / f"{name}.npy"]


@pytest.mark.parametrize(
    ("mine", "words", "better"),
    [
        ({"bytes": 900, "encode-copies": 9.0, "decode-copies": 4.0}, "smaller, faster", True),
        (
            {"bytes": 900, "encode-copies": 11.0, "decode-copies": 4.0},
            "NO: smaller, slower to encode",
            False,
        ),
        ({"encode-copies": 9.0, "decode-copies": 4.0}, "NO: same size, faster", False),
        (
            {"bytes": 1100, "encode-copies": 10.0, "decode-copies": 6.0},
            "NO: larger, slower to encode and decode",
            False,
        ),
        ({"bytes": 500, "nmse": 0.11}, "NO: none as exact", False),
    ],
)
def test_verdict_says_where_ours_is_not_better(
    mine: dict[str, Any], words: str, better: bool
) -> None:
    found = report.verdict(row("peer", "theirs"), [row("fl-opt", "mine", **mine)])
    assert found["verdict"] == words
    assert found["better"] is better


def test_verdict_prefers_smaller_and_faster_to_smallest() -> None:
    slow = row("fl-opt", "slow", bytes=100, **{"encode-copies": 99.0})
    good = row("fl-opt", "good", bytes=900, **{"encode-copies": 9.0, "decode-copies": 4.0})
    assert report.verdict(row("peer", "theirs"), [slow, good])["ours"] == "good"


def test_verdict_tells_of_the_smallest_where_all_are_larger() -> None:
    fast = row("fl-opt", "fast", bytes=9000, **{"encode-copies": 1.0, "decode-copies": 1.0})
    near = row("fl-opt", "near", bytes=1100, **{"encode-copies": 99.0})
    assert report.verdict(row("peer", "theirs"), [fast, near])["ours"] == "near"


def test_times_are_told_in_median_copies_however_many_codecs_there_are() -> None:
    seconds = {"encode-fastest": 0.004, "decode-fastest": 0.002}
    copies = (0.009, 0.001, 0.0002)  # a stalled one and a lucky one change nothing
    rows = [row("peer", "a", **{"copy-fastest": copy}, **seconds) for copy in copies]
    finished = report.finish(rows, {"v": 1000})
    assert [entry["encode-copies"] for entry in finished] == pytest.approx([4.0] * 3)
    assert finished[0]["decode-copies"] == pytest.approx(2.0)
    assert finished[0]["bits-per-parameter"] == 8.0


def test_brackets_in_a_failure_are_shown() -> None:
    table = report.table_of("v", 10, [row("peer", "theirs", failed="no [cuda] here")])
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table)
    assert "no [cuda] here" in console.export_text()


def test_reason_is_pips_last_error_or_the_last_line() -> None:
    assert reason("WARNING: x\nERROR: first\nERROR: No match\nhint\n") == "No match"
    assert reason("Traceback\nModuleNotFoundError: No module named 'a'\n\n").startswith(
        "Module"
    )
    assert reason("") == ""


def test_every_peer_is_pinned_and_no_install_chooses_a_torch() -> None:
    for peer in PEERS:
        if peer.packages or peer.alone:
            assert any(pin.startswith(f"{peer.name}==") for pin in peer.packages + peer.alone)
    assert any(pin.startswith("torch==") for pin in environments.CONSTRAINTS)


def test_ours_covers_every_kind() -> None:
    assert {candidate.kind for candidate in ours.candidates()} == set(report.KINDS)
