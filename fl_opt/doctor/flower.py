"""Flower's settings in the environment, and whether a program of its own is there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from fl_opt.doctor.check import Check

_SETTINGS = (
    (
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
        "1",
        "Flower installs all dependencies anew for every run",
    ),
    ("FLWR_TELEMETRY_ENABLED", "0", "Flower reports its use to its makers"),
    ("FLWR_DISABLE_UPDATE_CHECK", "1", "Flower asks for newer versions on every start"),
)
_PROGRAMS = ("flwr", "flower-superlink", "flower-supernode")


def flower() -> Iterator[Check]:
    """Look at Flower's programs and settings."""
    for program in _PROGRAMS:
        yield _command(program)
    for name, value, otherwise in _SETTINGS:
        found = os.environ.get(name)
        if found == value:
            yield Check("flower", name, "ok", value)
        else:
            text = "not set" if found is None else repr(found)
            mend = f"export {name}={value} (for flwr run and deployments)"
            yield Check("flower", name, "note", f"{text}: {otherwise}", mend)


def _command(program: str) -> Check:
    """Look for a program on the PATH, and beside this Python."""
    name = f"command {program}"
    if place := shutil.which(program):
        return Check("flower", name, "ok", place)
    beside = Path(sys.executable).parent
    if (beside / program).is_file():
        found = f"in {beside}, which is not on the PATH"
        return Check("flower", name, "note", found, f"source {beside / 'activate'}")
    mend = "activate the environment that flwr is installed in"
    return Check("flower", name, "fault", "not on the PATH", mend)
