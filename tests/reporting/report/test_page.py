from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fl_opt.errors import ConfigError
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting import RunRecorder, load_run
from fl_opt.reporting.report import render_report, write_report
from tests.reporting.report.runs import recorded
from tests.reporting.runs import settings

VOID = {"meta", "link"}


class Tags(HTMLParser):
    """Checks that tags are closed in order, and collects text and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str | None] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("line", "polyline")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def text(page: str) -> str:
    return " ".join(" ".join(Tags(page).words).split())


def test_a_page_about_one_run_says_what_it_came_to(tmp_path: Path) -> None:
    run = recorded(tmp_path, "one")
    found = text(render_report([run]))
    for part in (
        "accuracy 0.7500 best 0.7500; target 0.7 in round 3",
        "sent 18.9 kB 93.0% less than float32 (14.3x)",
        "time per round, virtual 3.00 s 9.00 s in total, 3 rounds",
        "peak memory 100 MB of a client",
        "digits / mlp / fedavg, 3 rounds, balanced: up topk(0.02) | ternary",
        "Accuracy over rounds",
        "Where a round's time goes",
        "Where bytes go",
        "Steps that updates had missed",
        "Codecs chosen, up",
        "Clients",
        "topk(0.03) | ternary",
        "output.name one",
    ):
        assert part in found, part
    assert "Pareto" not in found
    assert "Runs" not in found


def test_it_needs_no_network(tmp_path: Path) -> None:
    page = render_report([recorded(tmp_path, "one")])
    assert Tags(page).addresses == ["data:,"]
    assert "http" not in page
    assert "@import" not in page


def test_every_picture_has_words_and_numbers_beside_it(tmp_path: Path) -> None:
    page = render_report([recorded(tmp_path, "one")])
    pictures = page.count("<svg ")
    assert pictures >= 8
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]{10,}"', page)) == pictures
    assert page.count("<summary>In numbers</summary>") == pictures


def test_several_runs_are_compared(tmp_path: Path) -> None:
    one, two = recorded(tmp_path, "one"), recorded(tmp_path, "two", lean=True, seed=7)
    found = text(render_report([one, two]))
    assert "2 runs" in found
    assert "Accuracy (mean of the last ten rounds) and bytes of each run" in found
    assert "Clients of one" in found
    assert "Clients of two" in found
    assert "seed 42 7" in found
    assert re.search(r"two 0\.7500 0\.7500 3 45 B 900 B", found)


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    runs = [recorded(tmp_path / place, "same") for place in ("a", "b")]
    found = text(render_report(runs))
    assert "same (1)" in found
    assert "same (2)" in found


def test_what_clients_and_users_write_is_text_and_not_markup(tmp_path: Path) -> None:
    page = render_report([recorded(tmp_path, "<i>x", dataset="<script>evil")])
    assert "<i>" not in page
    assert "<script>evil" not in page
    assert "&lt;script&gt;evil" in page


def test_a_run_without_a_round_has_a_page(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual", resume=False)
    recorder.on_start(4)
    found = text(render_report([load_run(tmp_path / "four")]))
    assert "running" in found
    assert "was not evaluated" in found


def test_a_run_on_a_real_network_has_no_virtual_time(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="flower", resume=False)
    recorder.on_start(4)
    record = RoundRecord(1, wall_seconds=2.0, federated_accuracy=0.5, federated_loss=1.0)
    recorder.on_round(record)
    found = text(render_report([load_run(tmp_path / "four")]))
    assert "time per round 2.00 s" in found
    assert "virtual" not in found


def test_a_report_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
