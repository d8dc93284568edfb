"""Checkpoints of a run: named blobs in a folder, replaced all at once or not at all.

A folder holds::

    manifest.json    {"format": 1, "blobs": {name: {"file": ..., "sha256": ..., "size": ...}}}
    blob-<sha256>    the content of a blob; a file of that name never holds anything else
    lock             locked by whoever writes

Saving writes the new blobs, then the manifest, each to a draft that is synced to disk and
renamed; then it removes the files that the manifest does not mention. A process that is killed
on the way, or a machine that loses power, leaves the old checkpoint or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from fl_opt.errors import CheckpointError

FORMAT: Final = 1

_MANIFEST: Final = "manifest.json"
_LOCK: Final = "lock"
_BLOB: Final = re.compile(r"blob-[0-9a-f]{64}")


class Checkpoints:
    """The checkpoint in a folder.

    ``with Checkpoints(folder) as checkpoints`` locks the folder against other writers, here and
    in other processes, until the block is left or the process ends; ``save`` without a block
    locks it for its own duration. ``load`` needs no lock, but may find files gone if
    someone saves at the same time.

    Parameters
    ----------
    folder : Path
        It is made when it is first written to. Files of other names in it are left alone.

    Raises
    ------
    CheckpointError
        On entering the block, if another writer is at work or the folder cannot be written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        path = self.folder / _LOCK
        with _named(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            busy = isinstance(error, BlockingIOError)
            reason = "another run writes its checkpoints here" if busy else error.strerror
            raise CheckpointError(f"{self.folder}: {reason}") from None
        self._lock = lock
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def exists(self) -> bool:
        """Say whether there is a checkpoint; :meth:`load` says whether it is a good one."""
        return (self.folder / _MANIFEST).exists()

    def save(self, blobs: Mapping[str, bytes | None]) -> None:
        """Replace the checkpoint.

        Parameters
        ----------
        blobs : mapping of str to bytes or None
            All blobs of the new checkpoint, by any names. None: as in the last checkpoint; it
            is not written again. Blobs that are not named are dropped.

        Raises
        ------
        CheckpointError
            If a blob that is None is not in the last checkpoint, another writer is at work, or
            a file cannot be written. The last checkpoint stays as it was.
        """
        alone: AbstractContextManager[object] = contextlib.nullcontext() if self._lock else self
        with alone:
            entries = self._keep([name for name, data in blobs.items() if data is None])
            for name, data in blobs.items():
                if data is not None:
                    entries[name] = _Entry.of(data)
                    self._write_new(entries[name], data)
            _sync_folder(self.folder)
            rows = {name: asdict(entries[name]) for name in blobs}
            manifest = json.dumps({"format": FORMAT, "blobs": rows}, indent=2)
            _write(self.folder / _MANIFEST, manifest.encode())
            _sync_folder(self.folder)
            self._remove_all_but({entry.file for entry in entries.values()})

    def load(self) -> dict[str, bytes]:
        """Return the blobs of the checkpoint, by name.

        Raises
        ------
        CheckpointError
            If there is no checkpoint, or a file of it is missing or damaged.
        """
        return {name: self._read(name, entry) for name, entry in self._entries().items()}

    def _write_new(self, entry: _Entry, data: bytes) -> None:
        """Write a blob, unless its file is there; one that was damaged is written again."""
        path = self.folder / entry.file
        with _named(path):
            there = path.exists() and path.read_bytes() == data
        if not there:
            _write(path, data)

    def _keep(self, names: list[str]) -> dict[str, _Entry]:
        """Return the entries of blobs that are to stay as they are."""
        last = self._entries() if names else {}
        for name in names:
            if name not in last:
                raise CheckpointError(
                    f"{self.folder}: blob {name!r} is not in the last checkpoint, "
                    "so its content must be given"
                )
            path = self.folder / last[name].file
            with _named(path, name):
                size = path.stat().st_size
            _check(size == last[name].size, path, name, f"{size} bytes, not {last[name].size}")
        return {name: last[name] for name in names}

    def _read(self, name: str, entry: _Entry) -> bytes:
        path = self.folder / entry.file
        with _named(path, name):
            data = path.read_bytes()
        _check(len(data) == entry.size, path, name, f"{len(data)} bytes, not {entry.size}")
        digest = hashlib.sha256(data).hexdigest()
        _check(digest == entry.sha256, path, name, "its SHA-256 differs from the manifest's")
        return data

    def _entries(self) -> dict[str, _Entry]:
        path = self.folder / _MANIFEST
        if not path.exists():
            raise CheckpointError(f"{self.folder}: holds no checkpoint")
        with _named(path):
            text = path.read_bytes()
        try:
            manifest = json.loads(text)
            version, rows = manifest["format"], manifest["blobs"]
            entries = {name: _Entry(**row) for name, row in rows.items()}
            sound = all(_BLOB.fullmatch(entry.file) for entry in entries.values())
        except (ValueError, TypeError, KeyError, AttributeError):
            version, entries, sound = FORMAT, {}, False
        if version != FORMAT:
            raise CheckpointError(
                f"{path}: format {version!r} is not known; this release reads {FORMAT}"
            )
        if not sound:
            raise CheckpointError(f"{path}: not the manifest of a checkpoint")
        return entries

    def _remove_all_but(self, files: set[str]) -> None:
        for path in self.folder.glob("blob-*"):
            if path.name not in files:
                with _named(path):
                    path.unlink()


@dataclass(frozen=True)
class _Entry:
    """What the manifest says about a blob."""

    file: str
    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> _Entry:
        digest = hashlib.sha256(data).hexdigest()
        return cls(f"blob-{digest}", digest, len(data))


def _write(path: Path, data: bytes) -> None:
    """Write a file at once: its name stands for the old content or for the new, on disk."""
    draft = path.with_name(f"{path.name}.new")
    with _named(path), draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        draft.replace(path)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk: files that were synced may still lack theirs."""
    with _named(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _named(path: Path, blob: str | None = None) -> Iterator[None]:
    """Turn what the system reports into an error that names the file."""
    try:
        yield
    except OSError as error:
        of_blob = "" if blob is None else f" (blob {blob!r})"
        raise CheckpointError(f"{path}{of_blob}: {error.strerror}") from None


def _check(sound: bool, path: Path, blob: str, reason: str) -> None:
    if not sound:
        raise CheckpointError(f"{path} (blob {blob!r}) is damaged: {reason}")
