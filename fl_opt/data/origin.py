"""What prepared data was made from: whatever changes it changes, too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fl_opt import seeds
from fl_opt.errors import DataError


def origin_of_files(paths: Iterable[Path]) -> list[list[Any]]:
    """Return name, size and times of files, which tell whether they are still the same.

    The time of the last change of status is among them: unlike that of the last change of
    content, it cannot be set back.

    Raises
    ------
    DataError
        If one cannot be looked at.
    """
    rows = []
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        rows.append([str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return rows


def origin_of_code(*packages: str) -> dict[str, str]:
    """Return a hash of the code that prepares data, and the versions of what it uses."""
    return {"code": _code(), **{package: _version(package) for package in packages}}


@lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.sha256()
    for path in [*sorted(Path(__file__).parent.glob("*.py")), Path(seeds.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
