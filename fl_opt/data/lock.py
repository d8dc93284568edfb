"""A lock between processes that ends with the process that holds it, and leaves no file."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[str]:
    """Hold the lock of a name for the length of a block.

    Parameters
    ----------
    path : Path
        A file that is there while the lock is held. Its folder is made if need be.
    wait : bool
        Whether to wait for whoever holds it.

    Yields
    ------
    str
        Empty if the lock is held, else why it is not.
    """
    try:
        file = _acquire(path, wait)
    except OSError as error:
        yield error.strerror or str(error)
        return
    try:
        yield ""
    finally:
        # While it is still locked: whoever waits for it sees that it is gone, and tries again.
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


def _acquire(path: Path, wait: bool) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass  # the one before has removed it
        except BaseException:
            file.close()
            raise
        file.close()
