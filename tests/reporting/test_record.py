from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_opt.errors import ConfigError, DataError
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting import RunRecorder, load_run
from fl_opt.reporting.strict_json import to_json, write_json
from tests.reporting.runs import records, settings


def drive(
    recorder: RunRecorder, rounds: list[RoundRecord], error: BaseException | None
) -> None:
    """Do what a strategy does: ``on_end`` is called also when the run fails."""
    recorder.on_start(4)
    try:
        for record in rounds:
            recorder.on_reply(record.server_round, 1, 2)
            recorder.on_round(record)
        if error is not None:
            raise error
    finally:
        recorder.on_end()


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Folder of a complete record."""
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    drive(recorder, records(), None)
    return recorder.folder


def summary_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "summary.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_line_for_each_round(recorded: Path) -> None:
    lines = (recorded / "rounds.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["server-round"] for line in found] == [0, 1, 2, 3, 4]
    assert found[3]["message-bytes-up"] == 100
    assert found[3]["parts"] == {"train": 0.5, "upload": 2.0, "decode-aggregate": 0.75}
    assert found[3]["clients"][1]["error"] == "stale"


def test_summary_of_a_complete_run(recorded: Path) -> None:
    found = summary_of(recorded)
    assert (found["status"], found["error"], found["rounds-done"]) == ("completed", None, 4)
    assert found["convergence"]["best-accuracy"] == 0.9


def test_nothing_else_is_left_in_the_folder(recorded: Path) -> None:
    assert sorted(path.name for path in recorded.iterdir()) == ["rounds.jsonl", "summary.json"]


def test_nothing_is_written_before_the_run_starts(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    assert recorder.folder == tmp_path / "four"
    assert not recorder.folder.exists()
    assert recorder.summary().status == "running"


def test_rounds_are_on_disk_at_once(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    recorder.on_start(4)
    assert summary_of(recorder.folder)["status"] == "running"
    for count, record in enumerate(records()[:3], start=1):
        recorder.on_round(record)
        run = load_run(recorder.folder)
        assert len(run.records) == count
    assert run.summary.status == "running"
    assert run.summary.rounds_done == 2
    recorder.on_end()


def test_failed_run_says_why_in_one_line(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    with pytest.raises(RuntimeError):
        drive(recorder, records()[:3], RuntimeError("link\n  is down"))
    found = summary_of(recorder.folder)
    assert found["status"] == "failed"
    assert found["error"] == "RuntimeError: link is down"
    assert (found["rounds-planned"], found["rounds-done"]) == (4, 2)
    assert recorder.summary().to_dict() == found


def test_run_that_stops_early_has_failed(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    drive(recorder, records()[:2], None)
    assert (recorder.summary().status, recorder.summary().error) == ("failed", None)


def test_interrupted_run(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    with pytest.raises(KeyboardInterrupt):
        drive(recorder, records()[:2], KeyboardInterrupt())
    assert summary_of(recorder.folder)["status"] == "interrupted"


def test_complete_run_inside_an_error_handler_is_complete(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    try:
        raise LookupError("an earlier attempt")
    except LookupError:
        drive(recorder, records(), None)
    assert (recorder.summary().status, recorder.summary().error) == ("completed", None)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    broken = RoundRecord(1, train_loss=float("nan"), loss=float("inf"), accuracy=0.1)
    drive(recorder, [broken], None)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for name in ("rounds.jsonl", "summary.json"):
        json.loads((recorder.folder / name).read_text(), parse_constant=refuse)
    (read,) = load_run(recorder.folder).records
    assert (read.train_loss, read.loss, read.accuracy) == (None, None, 0.1)


def test_a_record_is_never_overwritten(recorded: Path, tmp_path: Path) -> None:
    before = (recorded / "rounds.jsonl").read_bytes()
    with pytest.raises(
        ConfigError, match=r"'output.name' = 'four'.* holds a run record already"
    ):
        RunRecorder(settings(tmp_path), engine="virtual")
    assert (recorded / "rounds.jsonl").read_bytes() == before


def test_of_two_runs_that_start_at_once_one_is_refused(tmp_path: Path) -> None:
    first, second = (RunRecorder(settings(tmp_path), engine="virtual") for _ in range(2))
    first.on_start(4)
    with pytest.raises(ConfigError, match="holds a run record already"):
        second.on_start(4)
    second.on_end()
    assert summary_of(first.folder)["status"] == "running"
    first.on_end()


def test_without_a_name_each_run_gets_its_own_folder(tmp_path: Path) -> None:
    unnamed = settings(tmp_path, **{"output.name": ""})
    names = {RunRecorder(unnamed, engine="virtual").folder.name for _ in range(5)}
    assert len(names) == 5
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", name) for name in names)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/x", "a/"])
def test_a_name_is_one_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="should be a plain folder name"):
        RunRecorder(settings(tmp_path, **{"output.name": name}), engine="virtual")


def test_reading_gives_back_what_was_recorded(recorded: Path, tmp_path: Path) -> None:
    run = load_run(recorded)
    assert run.settings == settings(tmp_path)
    assert run.records == records()
    assert run.summary.to_dict() == summary_of(recorded)
    assert run.summary.info.folder == recorded


def test_reading_a_run_that_was_killed_leaves_out_the_unfinished_line(recorded: Path) -> None:
    path = recorded / "rounds.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    assert load_run(recorded).records == records()[:-1]
    path.write_bytes(content + b'{"server-round": 5')
    assert load_run(recorded).records == records()


def test_a_key_of_a_later_version_is_no_obstacle(recorded: Path) -> None:
    path = recorded / "rounds.jsonl"
    line = json.dumps({"server-round": 5, "moon-phase": 0.5})
    path.write_text(path.read_text() + line + "\n")
    assert load_run(recorded).records[-1] == RoundRecord(5)


def damage_rounds(folder: Path, line: str) -> None:
    path = folder / "rounds.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = line
    path.write_text("\n".join(lines) + "\n")


def damage_summary(folder: Path, **changes: object) -> None:
    write_json(folder / "summary.json", {**summary_of(folder), **changes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: damage_rounds(f, "{"), r"rounds\.jsonl, line 3: not a round record"),
        (lambda f: damage_rounds(f, "[1]"), r"rounds\.jsonl, line 3: .* one JSON object"),
        (
            lambda f: damage_rounds(f, '{"server-round": "x"}'),
            r"rounds\.jsonl, line 3: server-round: .* valid integer",
        ),
        (
            lambda f: damage_rounds(f, '{"server-round": 2, "clients": [{}]}'),
            r"rounds\.jsonl, line 3: clients\.0\.node-id",
        ),
        (lambda f: (f / "rounds.jsonl").unlink(), r"rounds\.jsonl: not a readable run record"),
        (lambda f: (f / "summary.json").unlink(), r"summary\.json: not a readable run record"),
        (
            lambda f: (f / "summary.json").write_text("{"),
            r"summary\.json: not a run summary",
        ),
        (
            lambda f: damage_summary(f, status="odd"),
            r"summary\.json: not a run summary: status: .*'running'",
        ),
        (
            lambda f: damage_summary(f, settings={"modle": "mlp"}),
            r"summary\.json: unknown setting 'modle'",
        ),
    ],
)
def test_a_broken_record_is_refused_by_file_and_line(
    recorded: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(recorded)
    with pytest.raises(DataError, match=message) as caught:
        load_run(recorded)
    assert "\n" not in str(caught.value)


def cut_short(folder: Path) -> Path:
    """Record three rounds of four, and die."""
    recorder = RunRecorder(settings(folder), engine="virtual")
    with pytest.raises(RuntimeError):
        drive(recorder, records()[:4], RuntimeError("power is gone"))
    damage_summary(recorder.folder, started="2001-02-03T04:05:06+00:00")
    return recorder.folder


def test_a_resumed_run_ends_with_the_record_of_one_that_was_never_cut_short(
    recorded: Path, tmp_path: Path
) -> None:
    folder = cut_short(tmp_path / "again")
    recorder = RunRecorder(settings(tmp_path / "again"), engine="virtual", resume=True)
    assert recorder.folder == folder
    recorder.resume_from(2)
    assert recorder.records == records()[:3]
    drive(recorder, records()[3:], None)
    assert (folder / "rounds.jsonl").read_bytes() == (recorded / "rounds.jsonl").read_bytes()
    resumed, whole = summary_of(folder), summary_of(recorded)
    assert resumed.pop("started") == "2001-02-03T04:05:06+00:00"
    for summary in (resumed, whole):
        summary.pop("started", None)
        summary["settings"].pop("output.folder")
    assert resumed == whole
    assert load_run(folder).summary.to_dict() == summary_of(folder)


def test_rounds_that_were_lost_are_counted_nowhere(tmp_path: Path) -> None:
    folder = cut_short(tmp_path)
    recorder = RunRecorder(settings(tmp_path), engine="virtual", resume=True)
    recorder.resume_from(1)
    recorder.on_start(4)
    assert load_run(folder).records == records()[:2]
    found = summary_of(folder)
    assert (found["status"], found["error"], found["rounds-done"]) == ("running", None, 1)
    assert found["communication"]["up"]["message-bytes"] == 100
    assert found["time-seconds"]["wall-total"] == 4.5
    recorder.on_end()


@pytest.mark.parametrize("torn", [b'{"server-round": 4, "wall', b"{", b"\0\0"])
def test_a_torn_last_line_is_no_obstacle_to_resuming(tmp_path: Path, torn: bytes) -> None:
    folder = cut_short(tmp_path)
    with (folder / "rounds.jsonl").open("ab") as file:
        file.write(torn)
    recorder = RunRecorder(settings(tmp_path), engine="virtual", resume=True)
    recorder.resume_from(3)
    drive(recorder, records()[4:], None)
    assert load_run(folder).records == records()


def test_nothing_was_saved_yet(tmp_path: Path) -> None:
    folder = cut_short(tmp_path)
    (folder / "summary.json").unlink()  # killed between the two files
    recorder = RunRecorder(settings(tmp_path), engine="virtual", resume=True)
    recorder.resume_from(-1)
    assert (folder / "rounds.jsonl").read_bytes() == b""
    drive(recorder, records(), None)
    assert load_run(folder).records == records()


def test_resuming_without_a_record_starts_one(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual", resume=True)
    recorder.resume_from(7)
    assert recorder.records == []
    assert not recorder.folder.exists()
    drive(recorder, records(), None)
    assert load_run(recorder.folder).records == records()


def test_a_complete_run_can_go_on(recorded: Path, tmp_path: Path) -> None:
    longer = settings(tmp_path, **{"num-server-rounds": 5})
    recorder = RunRecorder(longer, engine="virtual", resume=True)
    recorder.resume_from(4)
    recorder.on_start(5)
    recorder.on_round(RoundRecord(5, accuracy=0.95))
    recorder.on_end()
    run = load_run(recorded)
    assert (run.summary.status, run.summary.rounds_done) == ("completed", 5)
    assert run.summary.convergence.best_round == 5


def test_a_record_that_is_not_taken_over_is_not_overwritten(
    recorded: Path, tmp_path: Path
) -> None:
    before = (recorded / "rounds.jsonl").read_bytes()
    recorder = RunRecorder(settings(tmp_path), engine="virtual", resume=True)
    with pytest.raises(ConfigError, match="holds a run record already"):
        recorder.on_start(4)
    assert (recorded / "rounds.jsonl").read_bytes() == before


def test_only_a_recorder_made_to_resume_does(tmp_path: Path) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    cut_short(tmp_path)
    with pytest.raises(RuntimeError, match="made for a new run"):
        recorder.resume_from(1)
    assert len(load_run(recorder.folder).records) == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: damage_rounds(f, "{"), r"rounds\.jsonl, line 3: not a round record"),
        (
            lambda f: (f / "summary.json").write_text("[]"),
            r"summary\.json: not a run summary: no time of the start",
        ),
    ],
)
def test_a_broken_record_is_not_resumed_and_not_cut(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = cut_short(tmp_path)
    damage(folder)
    before = (folder / "rounds.jsonl").read_bytes()
    recorder = RunRecorder(settings(tmp_path), engine="virtual", resume=True)
    with pytest.raises(DataError, match=message):
        recorder.resume_from(3)
    assert (folder / "rounds.jsonl").read_bytes() == before


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_to_json_goes_into_lists_and_tuples() -> None:
    assert to_json({"a": [float("-inf"), (1.5, float("nan"))]}) == '{"a": [null, [1.5, null]]}'


def test_a_full_disk_delays_the_record_and_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = RunRecorder(settings(tmp_path), engine="virtual")
    recorder.on_start(4)
    path = recorder.folder / "rounds.jsonl"
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    first, *others, last = records()
    recorder.on_round(first)
    try:
        # Room for a part of a line, and none of it stays.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, most))
        for record in others:
            recorder.on_round(record)
        assert path.read_bytes().count(b"\n") == 1
        assert path.read_bytes().endswith(b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(" is ")[0] for line in told] == ["round 1", "round 2", "round 3"]
    assert all("File too large" in line for line in told)
    recorder.on_round(last)
    recorder.on_end()
    assert load_run(recorder.folder).records == records()
