from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from fl_opt.profiling.rounds import ClientRecord, RoundRecord
from fl_opt.reporting import RunInfo, RunSummary, print_summary, summarize
from tests.reporting.runs import records, settings


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    return RunInfo.collect(settings(tmp_path), "virtual", Path("runs/four"))


def render(summary: RunSummary, width: int = 80) -> list[str]:
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=width))
    return out.getvalue().splitlines()


def cells(lines: list[str], first: str) -> list[str]:
    """Return the cells of the row that begins with ``first``."""
    (line,) = (line for line in lines if line.split()[:1] == [first])
    return re.split(r"\s{2,}", line.strip())


def text(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def test_the_four_metrics(info: RunInfo) -> None:
    found = text(render(summarize(info, records())))
    for part in (
        "digits / mlp / fedavg, 4 rounds, balanced: up topk(0.02) | ternary",
        "ternary, down auto ecsq(0.5) status completed",
        "completed, 4 of 4 rounds, 8 updates used, 1 failed",
        "time per round mean 2.00 s, median 1.50 s, in total 8.50 s",
        "virtual: mean 25.0 s, median 25.0 s, in total 1 min 40 s",
        "of which train 500 ms, decode-aggregate 625 ms virtual: upload 2.00 s",
        "communication 4.08 kB sent, 49.0% less than float32 (1.96x)",
        "peak memory server 100 MB, clients 200 MB",
        "central accuracy 0.8000, mean of last 10 rounds 0.7625",
        "best 0.9000 in round 2; target 0.8 reached in round 2",
        "record: runs/four",
    ):
        assert part in found


def test_compression_against_float32(info: RunInfo) -> None:
    lines = render(summarize(info, records()))
    assert cells(lines, "traffic") == [
        "traffic",
        "payloads",
        "messages",
        "float32",
        "ratio",
        "saved",
    ]
    assert cells(lines, "up") == ["up", "80 B", "400 B", "4.00 kB", "50.0x", "98.00%"]
    assert cells(lines, "down") == ["down", "4.00 kB", "5.00 kB", "4.00 kB", "1.00x", "0.00%"]
    assert cells(lines, "both") == ["both", "4.08 kB", "5.40 kB", "8.00 kB", "1.96x", "49.00%"]


def test_it_fits_eighty_columns(info: RunInfo) -> None:
    assert max(map(len, render(summarize(info, records())))) <= 80


def test_a_failed_run(info: RunInfo) -> None:
    failed = summarize(info, records()[:2], status="failed", error="ValueError: [no] luck")
    found = text(render(failed))
    assert "failed, 1 of 4 rounds, 2 updates used, 0 failed: ValueError: [no] luck" in found
    assert "target 0.8 not reached in 1 rounds" in found


def test_a_run_in_which_nothing_happened(info: RunInfo) -> None:
    lines = render(summarize(info, []))
    found = text(lines)
    assert "time per round no round was completed" in found
    assert "communication nothing was sent" in found
    assert "peak memory server not measured, clients not measured" in found
    assert "convergence accuracy was not evaluated" in found
    assert cells(lines, "up") == ["up", "0 B", "0 B", "0 B", "-", "-"]


def test_codecs_chosen_for_clients(info: RunInfo) -> None:
    lean, rich = "topk(0.01) | ternary", "topk(0.04) | ternary"
    clients = [
        ClientRecord(1, codec_up=rich, codec_down="ecsq(1)"),
        ClientRecord(2, codec_up=lean),
        ClientRecord(3, codec_up=lean),
        ClientRecord(4, codec_up=lean),
        ClientRecord(5, codec_up=lean, error="no reply"),
    ]
    summary = summarize(info, [RoundRecord(1, clients=clients)])
    found = text(render(summary))
    assert f"codecs chosen up: {lean} 75%, {rich} 25% down: ecsq(1) 100%" in found
    assert summary.to_dict()["exchange"]["codecs-up"] == {lean: 3, rich: 1}


def test_no_codecs_chosen_where_all_have_the_same(info: RunInfo) -> None:
    assert "codecs chosen" not in text(render(summarize(info, records())))


def test_no_virtual_line_on_a_real_network(info: RunInfo) -> None:
    assert "virtual:" not in text(render(summarize(info, [RoundRecord(1, wall_seconds=1.0)])))
