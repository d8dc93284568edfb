"""The project's own files agree with each other and with Flower."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_files
from flwr.cli.config_utils import load_and_validate
from packaging.requirements import Requirement

import fl_opt

ROOT = Path(__file__).parents[1]
PACKAGES = ("fl_opt", "strategies")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [
    *PROJECT["project"]["dependencies"],
    *(line for e in EXTRAS.values() for line in e),
]


def sources() -> Iterator[str]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield path.relative_to(ROOT).as_posix()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_flower_accepts_the_app() -> None:
    _, warnings = load_and_validate(ROOT / "pyproject.toml", check_module=True)
    assert warnings == []


def test_app_bundle_holds_the_two_packages_and_nothing_else() -> None:
    top = ("pyproject.toml", ".gitignore", "README.md", "LICENSE", "run_simulation.py")
    files: dict[str, bytes | Path] = {name: ROOT / name for name in (*top, *sources())}
    files |= {
        ".venv/lib/python3.11/site-packages/numpy/__init__.py": b"",
        "tests/conftest.py": b"",
        "benchmarks/codecs.py": b"",
        "runs/four/summary.json": b"{}",
        "docs/design.md": b"",
    }
    bundle, _ = build_fab_from_files(files)
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        names = set(archive.namelist())
    kept = {"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT"}
    assert names == {*kept, *sources()}
    assert len(bundle) < 2_000_000  # a fifth of what Flower takes


def test_version_is_the_same_everywhere() -> None:
    assert PROJECT["project"]["version"] == fl_opt.__version__
    assert f"## [{fl_opt.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def imported_by(source: str) -> Iterator[str]:
    """Yield the top-level name of every module that a file imports."""
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_everything_that_is_imported_is_declared() -> None:
    lines = (
        PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["plot"]
    )
    declared = {Requirement(line).name for line in lines}
    homes = packages_distributions()
    found = {
        name for source in (*sources(), "run_simulation.py") for name in imported_by(source)
    }
    # Ray comes with flwr[simulation], where there is one for the platform.
    third_party = found - set(sys.stdlib_module_names) - {*PACKAGES, "ray"}
    assert third_party >= {"flwr", "numpy", "torch"}
    missing = {
        name
        for name in third_party
        if not declared & {home.replace("_", "-").lower() for home in homes.get(name, [])}
    }
    assert missing == set()


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_the_tested_set_satisfies_each_requirement(line: str) -> None:
    requirement = Requirement(line)
    assert requirement.specifier.contains(pins()[requirement.name])


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_this_environment_satisfies_each_requirement(line: str) -> None:
    requirement = Requirement(line)
    assert requirement.specifier.contains(version(requirement.name))


def test_the_tested_set_is_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pin = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*")  # no local versions, paths or addresses
    assert [
        line for line in lines if not line.startswith("#") and not pin.fullmatch(line)
    ] == []


def test_type_information_is_shipped() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_make_says_in_one_line_that_python_will_not_do(tmp_path: Path, python: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "-C", str(tmp_path), f"PYTHON={python}", "lint"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert errors == [
        f"error: PYTHON={python} is not Python 3.11 or later; try make PYTHON=python3.12"
    ]
    assert not (tmp_path / ".venv").exists()
