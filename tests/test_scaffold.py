"""The app to start from: complete, under one's own name, and never over something else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.cli.config_utils import load_and_validate
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.errors import ConfigError
from fl_opt.scaffold import write_app

ROOT = Path(__file__).parents[1]


def test_flower_accepts_it_and_no_other_name_is_left(tmp_path: Path) -> None:
    files = write_app(tmp_path / "my-app")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in files) == [
        "my-app/my_app/__init__.py",
        "my-app/my_app/client_app.py",
        "my-app/my_app/server_app.py",
        "my-app/my_app/task.py",
        "my-app/pyproject.toml",
    ]
    config, warnings = load_and_validate(tmp_path / "my-app/pyproject.toml", check_module=True)
    assert warnings == []
    assert config["project"]["name"] == "my-app"
    assert not any("pytorch" in path.read_text() for path in files)


def test_it_can_be_imported(tmp_path: Path) -> None:
    write_app(tmp_path / "mine")
    code = "import mine.client_app, mine.server_app; print(mine.client_app.app)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "mine", check=True)


def test_an_empty_folder_will_do_and_a_full_one_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write_app(tmp_path / "empty")
    before = sorted((tmp_path / "empty").rglob("*"))
    with pytest.raises(ConfigError, match="is there already"):
        write_app(tmp_path / "empty")
    assert sorted((tmp_path / "empty").rglob("*")) == before


@pytest.mark.parametrize("name", ["2fast", "class", "torch", "a b"])
def test_a_name_that_no_package_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a package"):
        write_app(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    result = CliRunner().invoke(app, ["init", str(folder)])
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == f"now: flwr run {folder} --stream"
    listed = CliRunner().invoke(app, ["init", str(tmp_path / "other"), "--json"])
    assert str(tmp_path / "other/pyproject.toml") in json.loads(listed.output)
    again = CliRunner().invoke(app, ["init", str(folder)])
    assert again.exit_code == 2
    assert again.output.startswith(f"error: {folder}")


@pytest.mark.slow
def test_the_wheel_holds_packages_templates_and_types(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "fl_opt/py.typed",
        "strategies/py.typed",
        "fl_opt/reporting/report/templates/report.html.j2",
        "fl_opt/scaffold_app/pyproject.toml",
        "fl_opt/scaffold_app/pytorch/task.py",
    } <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "examples/")) for name in names)
