"""Results of trials that outlive the process, and files that cannot be trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_opt.cache.remembered import remember

KEY = {"device": "a processor", "sizes": [16, 32]}


class Trial:
    """Counts how often it is run."""

    def __init__(self, value: Any = 7) -> None:
        self.value = value
        self.runs = 0

    def __call__(self) -> Any:
        self.runs += 1
        return self.value


def file_of(folder: Path) -> Path:
    return folder / "trials" / "speed.json"


def test_is_found_once_for_each_key_and_kind(tmp_path: Path) -> None:
    trial = Trial({"16": 1.5})
    for _ in range(2):
        assert remember(tmp_path, "speed", KEY, trial) == {"16": 1.5}
    assert trial.runs == 1
    remember(tmp_path, "speed", {**KEY, "device": "another"}, trial)
    remember(tmp_path, "memory", KEY, trial)
    assert trial.runs == 3
    same = {name: KEY[name] for name in reversed(KEY)}
    remember(tmp_path, "speed", same, trial)
    assert trial.runs == 3
    assert sorted(path.name for path in file_of(tmp_path).parent.iterdir()) == [
        "memory.json",
        "speed.json",
    ]


def test_another_process_finds_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fl_opt.cache.remembered import remember; "
        f"print(remember(Path(sys.argv[1]), 'speed', {KEY!r}, lambda: 11))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    trial = Trial()
    assert remember(tmp_path, "speed", KEY, trial) == 11
    assert trial.runs == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1, 2]",
        b'{"format": 0, "results": {}}',
        b'{"format": 1}',
        b'{"format": 1, "results": [1]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    remember(tmp_path, "speed", KEY, Trial())
    file_of(tmp_path).write_bytes(content)
    trial = Trial(8)
    assert remember(tmp_path, "speed", KEY, trial) == 8
    assert remember(tmp_path, "speed", KEY, trial) == 8
    assert trial.runs == 1


@pytest.mark.parametrize("entry", [None, [], {}, {"key": {}}, {"value": "fast"}])
def test_an_entry_that_cannot_be_is_found_anew(tmp_path: Path, entry: object) -> None:
    remember(tmp_path, "speed", KEY, Trial())
    content = json.loads(file_of(tmp_path).read_text())
    content["results"] = dict.fromkeys(content["results"], entry)
    file_of(tmp_path).write_text(json.dumps(content))
    trial = Trial(8)
    usable = [remember(tmp_path, "speed", KEY, trial, usable=lambda v: v == 8) for _ in "12"]
    assert usable == [8, 8]
    assert trial.runs == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("a file where the folder should be")
    trial = Trial()
    assert [remember(tmp_path, "speed", KEY, trial) for _ in range(2)] == [7, 7]
    assert trial.runs == 2


def test_the_oldest_go(tmp_path: Path) -> None:
    trial = Trial()
    for number in range(201):
        remember(tmp_path, "speed", {"number": number}, trial)
    remember(tmp_path, "speed", {"number": 200}, trial)
    remember(tmp_path, "speed", {"number": 1}, trial)
    assert trial.runs == 201
    remember(tmp_path, "speed", {"number": 0}, trial)
    assert trial.runs == 202
    assert len(json.loads(file_of(tmp_path).read_text())["results"]) == 200


def test_what_others_add_meanwhile_stays(tmp_path: Path) -> None:
    def find() -> int:
        remember(tmp_path, "speed", {"of": "another"}, Trial(1))
        return 2

    remember(tmp_path, "speed", KEY, find)
    trial = Trial()
    assert remember(tmp_path, "speed", {"of": "another"}, trial) == 1
    assert remember(tmp_path, "speed", KEY, trial) == 2
    assert trial.runs == 0


def test_a_failed_trial_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> int:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        remember(tmp_path, "speed", KEY, fail)
    with pytest.raises(ValueError, match="JSON"):
        remember(tmp_path, "speed", KEY, Trial(float("nan")))
    assert list(tmp_path.iterdir()) == []
