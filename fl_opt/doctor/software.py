"""Versions of Python and of the packages that this one is built on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from fl_opt.doctor.check import Check

PACKAGE = "fl-opt"
PYTHON = (3, 11)
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_FOR = {
    "text": "the dataset shakespeare",
    "plot": "pictures of reports and of fl-opt profile",
    "tensorboard": "output.tensorboard",
}
"""Extras that users want, and what for."""


def software() -> Iterator[Check]:
    """Look at Python, at what is required, and at extras."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= PYTHON:
        yield Check("software", "python", "ok", version)
    else:
        yield Check("software", "python", "fault", version, "use Python 3.11 or later")
    for line in _requirements():
        extra = _EXTRA.search(line)
        if extra is None:
            yield _package(Requirement(line))
        elif extra[1] in _FOR:
            yield _extra(Requirement(line), extra[1])


def _requirements() -> list[str]:
    """Return what this package's metadata asks for; nothing where it is not installed."""
    try:
        return metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return []


def _package(requirement: Requirement) -> Check:
    name, wanted = requirement.name, str(requirement.specifier)
    command = f'pip install "{name}{wanted}"'
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check("software", name, "fault", "not installed", command)
    if not requirement.specifier.contains(found, prereleases=True):
        return Check("software", name, "fault", f"{found}, needs {wanted}", command)
    return Check("software", name, "ok", found)


def _extra(requirement: Requirement, extra: str) -> Check:
    found = _package(requirement)
    if found.status == "ok":
        return found
    mend = f'pip install "{PACKAGE}[{extra}]"'
    return Check("software", found.name, "note", f"{found.found}: for {_FOR[extra]}", mend)
