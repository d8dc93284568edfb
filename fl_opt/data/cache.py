"""Prepared arrays on disk, for processes that are started anew for each message.

An entry is a folder of plain ``.npy`` files::

    <name>-<hash of what it was made from>/
        manifest.json       {"format": 1, "made-from": ..., "facts": ..., "arrays": {name:
                            {"dtype": ..., "shape": [...], "bytes": size of the file}}}
        <name of an array>.npy

It is written under another name and renamed once it is on disk, so that it is complete or not
there. Whoever makes one holds its lock, which the system takes back from a process that dies;
others wait for it and find the entry. What is removed or replaced stays good for those who have
it mapped. Nothing in an entry is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_opt.data.lock import locked
from fl_opt.data.mapped import map_array

FORMAT: Final = 1

_MANIFEST: Final = "manifest.json"
_UNFINISHED: Final = ".tmp"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What an entry holds.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        By names that may be names of files. Memory maps where they come from the cache.
    facts : dict
        What else there is to know, as JSON has it.
    """

    arrays: Mapping[str, NDArray[Any]]
    facts: dict[str, Any]


@dataclass(frozen=True)
class ArrayCache:
    """Entries in a folder, of which those that were used last are kept.

    A folder that cannot be written is no error: what is in it is used, and the rest is made
    anew in each process, which a warning says once.

    Parameters
    ----------
    folder : Path
        It is made when it is first written to.
    limit_bytes : int
        Most bytes of all files in it. 0: the cache is not used at all.
    """

    folder: Path
    limit_bytes: int

    def get(
        self, name: str, made_from: Mapping[str, object], make: Callable[[], Contents]
    ) -> Contents:
        """Return an entry, made if it is not there.

        Parameters
        ----------
        name : str
            Tells people what it is; of letters, digits and hyphens.
        made_from : mapping
            All that the content depends on, as JSON has it.
        make : callable
            Processes that ask at the same time call it once between them. What it raises is
            passed on.
        """
        if not self.limit_bytes:
            return make()
        # As it comes back out of a manifest: with lists in place of tuples.
        origin = json.loads(json.dumps(made_from, sort_keys=True))
        entry = self._path(name, origin)
        if (found := _read(entry, origin)) is not None:
            return found
        with locked(self._lock_of(entry)) as problem:
            if problem:
                _warn_once(self.folder, problem)
            elif (found := _read(entry, origin)) is not None:
                return found
            begin = time.perf_counter()
            made = make()
            _logger.info("%s made in %.3f s", entry.name, time.perf_counter() - begin)
            if not problem:
                self._store(entry, origin, made)
        return _read(entry, origin) or made

    def _path(self, name: str, origin: object) -> Path:
        text = json.dumps([FORMAT, origin], sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _lock_of(self, entry: Path) -> Path:
        return self.folder / f"{entry.name}.lock"

    def _store(self, entry: Path, origin: object, made: Contents) -> None:
        """Write an entry, whose lock is held, and make room for it."""
        size = sum(array.nbytes for array in made.arrays.values())
        if size > self.limit_bytes:
            _logger.warning(
                "%s takes %.0f MB, more than data.cache-limit-mb = %.0f: it is made anew in "
                "each process", entry.name, size / 1e6, self.limit_bytes / 1e6,
            )  # fmt: skip
            return
        try:
            for path in self.folder.glob(f"{entry.name}.*{_UNFINISHED}"):
                shutil.rmtree(path, ignore_errors=True)  # of one who died while at it
            draft = _new_draft(entry)
            try:
                _write(draft, origin, made)
                self._remove(entry)  # if it was damaged
                draft.rename(entry)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            _sync(self.folder)
            self._make_room()
        except OSError as error:
            _warn_once(self.folder, error.strerror or str(error))

    def _make_room(self) -> None:
        """Remove what dead processes left, and entries until the limit is kept."""
        entries = []
        for path in self.folder.iterdir():
            if path.name.endswith(_UNFINISHED):
                owner = self.folder / path.name.partition(".")[0]
                with locked(self._lock_of(owner), wait=False) as at_work:
                    if not at_work:
                        shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                entries.append((_last_used(path), _size(path), path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit_bytes:
                return
            self._remove(path)
            total -= size

    def _remove(self, entry: Path) -> None:
        """Take an entry out at once, then delete it."""
        rest = _new_draft(entry)
        try:
            entry.rename(rest)
        except FileNotFoundError:
            pass  # somebody else was faster
        finally:
            shutil.rmtree(rest, ignore_errors=True)


def _new_draft(entry: Path) -> Path:
    """Make a folder for what is not yet an entry, or no longer."""
    draft = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    draft.mkdir()
    return draft


def _write(folder: Path, origin: object, made: Contents) -> None:
    rows = {}
    for name, array in made.arrays.items():
        path = folder / f"{name}.npy"
        with path.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        size = path.stat().st_size
        rows[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": size}
    manifest = {"format": FORMAT, "made-from": origin, "facts": made.facts, "arrays": rows}
    with (folder / _MANIFEST).open("w", encoding="utf-8") as text:
        json.dump(manifest, text, indent=1)
        text.flush()
        os.fsync(text.fileno())
    _sync(folder)


def _read(entry: Path, origin: object) -> Contents | None:
    """Return what is in an entry, or None if it is not there or not as it was written."""
    try:
        manifest = json.loads((entry / _MANIFEST).read_bytes())
        if (manifest["format"], manifest["made-from"]) != (FORMAT, origin):
            raise ValueError("its manifest is of something else")
        arrays = {
            name: _read_array(entry / f"{name}.npy", row)
            for name, row in manifest["arrays"].items()
        }
        contents = Contents(arrays, dict(manifest["facts"]))
    except (FileNotFoundError, NotADirectoryError):
        return None  # also if it is being removed
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _logger.warning("%s is damaged and not used: %r", entry, error)
        return None
    _mark_used(entry)
    return contents


def _read_array(path: Path, row: Mapping[str, Any]) -> NDArray[Any]:
    """Map an array whose file is as long as it was, which its header alone does not say."""
    if path.stat().st_size != row["bytes"]:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {row['bytes']}")
    array = map_array(path)
    if (array.dtype.str, list(array.shape)) != (row["dtype"], row["shape"]):
        raise ValueError(f"{path.name} holds {array.dtype.str} of shape {array.shape}")
    return array


def _mark_used(entry: Path) -> None:
    # Not in a cache that this user may only read, nor if it is being removed.
    with contextlib.suppress(OSError):
        os.utime(entry / _MANIFEST)


def _last_used(entry: Path) -> float:
    try:
        return (entry / _MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    try:
        return sum(path.stat().st_size for path in entry.iterdir())
    except OSError:
        return 0


def _sync(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=64)
def _warn_once(folder: Path, reason: str) -> None:
    _logger.warning(
        "prepared data cannot be kept in %s (%s): it is made anew in each process",
        folder,
        reason,
    )
