from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fl_opt.profiling.rounds import RoundObserver, RoundRecord
from fl_opt.reporting import PlainLog, ProgressBar, console_observer
from tests.reporting.runs import records, settings

PLAIN = """\
digits / mlp / fedavg, 4 rounds, balanced: up topk(0.02) | ternary, down auto ecsq(0.5)
round 0/4  loss 2.3000  accuracy 0.1000  up 0 B  down 0 B  500 ms  0 ms virtual
round 1/4  train loss 1.0000  loss 2.0000  accuracy 0.5000  up 20 B  down 1.00 kB  4.00 s  10.0 s virtual
round 2/4  train loss 0.5000  loss 1.0000  accuracy 0.9000  up 20 B  down 1.00 kB  1.00 s  20.0 s virtual
round 3/4  train loss 0.3333  loss 0.6667  accuracy 0.8500  up 20 B  down 1.00 kB  2.00 s  30.0 s virtual  1 failed
round 4/4  train loss 0.2500  loss 0.5000  accuracy 0.8000  up 20 B  down 1.00 kB  1.00 s  40.0 s virtual
"""  # noqa: E501


def drive(observer: RoundObserver, rounds: list[RoundRecord]) -> None:
    observer.on_start(4)
    for record in rounds:
        if record.server_round:
            observer.on_reply(record.server_round, 1, 2)
            observer.on_reply(record.server_round, 2, 2)
        observer.on_round(record)
    observer.on_end()


def test_one_plain_line_a_round_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    observer = console_observer(settings(tmp_path), Console(file=out, width=60))
    assert isinstance(observer, PlainLog)
    drive(observer, records())
    assert out.getvalue() == PLAIN


def test_plain_line_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    out = io.StringIO()
    observer = PlainLog(settings(tmp_path), Console(file=out))
    drive(observer, [RoundRecord(2, federated_accuracy=0.25)])
    assert (
        out.getvalue().splitlines()[1] == "round 2/4  accuracy 0.2500  up 0 B  down 0 B  0 ms"
    )


def test_markup_in_a_setting_is_text(tmp_path: Path) -> None:
    out = io.StringIO()
    observer = PlainLog(settings(tmp_path, dataset="hub:[bold]x"), Console(file=out))
    observer.on_start(4)
    assert out.getvalue().startswith("hub:[bold]x / mlp")


def test_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    observer = console_observer(settings(tmp_path), console)
    assert isinstance(observer, ProgressBar)
    drive(observer, records())
    head, *_, last = out.getvalue().replace("\x1b[2K", "\r").split("\r")
    assert head.startswith("digits / mlp / fedavg, 4 rounds")
    for part in ("round 4/4", "accuracy 0.8000", "4.08 kB sent", "eta"):
        assert part in last


def test_progress_counts_replies_as_parts_of_a_round(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    observer = ProgressBar(settings(tmp_path), console)
    observer.on_start(4)
    observer.on_reply(3, received=1, expected=4)
    (task,) = observer._progress.tasks
    assert task.completed == 2.25
    assert task.fields["replies"] == "1/4 replies"
    observer.on_end()


def test_progress_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive(console_observer(settings(tmp_path)), records())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == PLAIN
