"""Results of trials, kept from process to process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_FOLDER = "trials"
_FORMAT = 1
_MOST = 200
"""Results that are kept of each kind; the oldest go."""


def remember(
    folder: Path,
    kind: str,
    key: Mapping[str, Any],
    find: Callable[[], Any],
    *,
    usable: Callable[[Any], bool] = lambda _: True,
) -> Any:
    """Return what was found before for the same key, or find it and keep it.

    Results are in one JSON file for each kind, ``<folder>/trials/<kind>.json``, which is
    replaced as a whole. A file that is damaged, or cannot be read or written, is as good as
    none. Two processes that find something at the same time may lose the result of one.

    Parameters
    ----------
    folder : Path
        As :func:`~fl_opt.cache.cache_folder` gives it; made when something is kept.
    kind : str
        What was tried; a file name.
    key : mapping
        All that the result depends on; plain values.
    find : callable
        Tries, and returns a plain value.
    usable : callable, optional
        Whether a value read from the file is one that ``find`` may have returned.

    Returns
    -------
    object
        As JSON gives it back: lists in place of tuples.

    Raises
    ------
    TypeError, ValueError
        If the key or what ``find`` returns is not JSON.
    """
    path = folder / _FOLDER / f"{kind}.json"
    name = _digest(key)
    entry = _read(path).get(name)
    if isinstance(entry, dict) and "value" in entry and usable(entry["value"]):
        return entry["value"]
    value = json.loads(json.dumps(find(), allow_nan=False))
    # Read again: others may have added theirs while this was tried.
    entries = {**_read(path), name: {"key": dict(key), "value": value}}
    while len(entries) > _MOST:
        del entries[next(iter(entries))]
    with contextlib.suppress(OSError):
        _replace(path, json.dumps({"format": _FORMAT, "results": entries}, indent=1))
    return value


def _digest(key: Mapping[str, Any]) -> str:
    text = json.dumps(key, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return {}
    results = content.get("results")
    return results if isinstance(results, dict) else {}


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
