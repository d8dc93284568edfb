"""Where things are kept that can be made again: prepared data, and what trials have shown."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(setting: str = "") -> Path:
    """Return the folder of the setting ``data.cache-folder``; it need not exist.

    Parameters
    ----------
    setting : str
        A path; ``~`` is the user's home. Empty: the environment variable ``FL_OPT_CACHE``, or
        ``fl-opt`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``, whichever is set first.
    """
    if chosen := setting or os.environ.get("FL_OPT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fl-opt"
