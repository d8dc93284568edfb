"""A set-up that is broken in several places: each fault is named, with its mend."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.config import load_settings
from fl_opt.doctor import Check, examine, worst

CALM = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in CALM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FL_OPT_CACHE", str(tmp_path / "cache"))
    place = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(place), prepend=":")


def found(**config: Any) -> dict[str, Check]:
    settings = load_settings({key.replace("_", "."): value for key, value in config.items()})
    return {check.name: check for check in examine(settings)}


def pretend(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str | None]) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name not in versions:
            return real(name)
        told = versions[name]
        if told is None:
            raise metadata.PackageNotFoundError(name)
        return told

    monkeypatch.setattr(metadata, "version", version)


def test_this_environment_has_no_fault() -> None:
    checks = found()
    assert [check for check in checks.values() if check.status == "fault"] == []
    assert {"python", "flwr", "torch", "cores", "bf16", "digits", "cache"} <= checks.keys()
    assert all(check.mend for check in checks.values() if check.status == "note")


@pytest.mark.parametrize(
    ("version", "says"),
    [("1.30.0", "1.30.0, needs <2,>=1.42"), (None, "not installed")],
)
def test_a_wrong_or_missing_flower(
    monkeypatch: pytest.MonkeyPatch, version: str | None, says: str
) -> None:
    pretend(monkeypatch, {"flwr": version})
    check = found()["flwr"]
    assert (check.status, check.found) == ("fault", says)
    assert check.mend == 'pip install "flwr<2,>=1.42"'


def test_a_missing_extra_is_a_note_that_says_what_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, {"matplotlib": None})
    check = found()["matplotlib"]
    assert check.status == "note"
    assert check.found == "not installed: for pictures of reports and of fl-opt profile"
    assert check.mend == 'pip install "fl-opt[plot]"'


def test_missing_data_is_a_fault_where_the_run_wants_it(tmp_path: Path) -> None:
    folder = str(tmp_path / "nothing")
    assert found(data_folder=folder)["fashion-mnist"].status == "note"
    check = found(data_folder=folder, dataset="fashion-mnist")["fashion-mnist"]
    assert check.status == "fault"
    assert folder in check.found
    assert "apt-get install dataset-fashion-mnist" in check.mend


def test_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FL_OPT_CACHE", str(tmp_path / "file" / "cache"))
    check = found()["cache"]
    assert check.status == "fault"
    assert "cannot be written" in check.found
    assert "FL_OPT_CACHE" in check.mend


def test_settings_of_flower_and_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED")
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "no")
    monkeypatch.setenv("PATH", "/nowhere")
    checks = found()
    assert checks["FLWR_TELEMETRY_ENABLED"].status == "note"
    assert checks["FLWR_TELEMETRY_ENABLED"].mend.startswith("export FLWR_TELEMETRY_ENABLED=0")
    assert checks["FLWR_DISABLE_UPDATE_CHECK"].found.startswith("'no'")
    beside = checks["command flower-supernode"]
    assert (beside.status, beside.mend.startswith("source ")) == ("note", True)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert found()["command flower-supernode"].status == "fault"


def test_a_package_that_cannot_be_imported_does_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fl_opt.doctor.machine", None)
    checks = found()
    assert checks["checks"].status == "fault"
    assert {"python", "digits", "flwr"} <= checks.keys()


def test_the_command_prints_faults_with_their_mends_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, {"flwr": "1.30.0", "matplotlib": None})
    arguments = ["doctor", "-c", f"dataset='fashion-mnist' data.folder='{tmp_path}'"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    for part in (
        "fault  software: flwr: 1.30.0, needs <2,>=1.42",
        'pip install "flwr<2,>=1.42"',
        "note   software: matplotlib: not installed",
        "fault  data: fashion-mnist: ",
        "2 faults, 1 notes",
    ):
        assert part in result.output, part


def test_the_command_prints_json() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    rows = json.loads(result.output)
    assert {"area", "name", "status", "found", "mend"} == set(rows[0])
    wrong = CliRunner().invoke(app, ["doctor", "-c", "seeed=1"])
    assert wrong.exit_code == 2
    assert "unknown setting 'seeed'" in wrong.output


def test_the_worst_counts() -> None:
    checks = [Check("a", "b", status, "") for status in ("ok", "fault", "note")]
    assert worst(checks) == "fault"
    assert worst(checks[:1]) == worst([]) == "ok"
