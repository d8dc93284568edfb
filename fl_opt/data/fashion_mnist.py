"""Fashion-MNIST: 70,000 grey images of 28x28 pixels in 10 classes (Xiao et al. 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_opt.data.examples import TaskInfo
from fl_opt.data.hub import hub
from fl_opt.data.idx import read_idx
from fl_opt.data.source import Source, classified
from fl_opt.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
HUB_ID = "zalando-datasets/fashion_mnist"
_NUM_CLASSES = 10
_PARTS = ("train", "t10k")
_IMAGES = "{}-images-idx3-ubyte"
_LABELS = "{}-labels-idx1-ubyte"


def fashion_mnist(folder: str) -> Source:
    """Load the images from a folder, from Debian's package or from the hub.

    Parameters
    ----------
    folder : str
        Where the four IDX files lie, as published or unpacked. Empty: the folder of
        Debian's package where there is one, else the hub.

    Raises
    ------
    DataError
        If the files are not there or not right; the message says how to get them.
    """
    if (found := _folder(folder)) is not None:
        return _from_idx(found)
    try:
        return hub(HUB_ID)
    except DataError as error:
        raise DataError(
            "fashion-mnist is not on this machine: run 'apt-get install "
            "dataset-fashion-mnist', or set data.folder to a folder with its four IDX files "
            f"(from the hub: {error})"
        ) from None


def fashion_mnist_files(folder: str) -> list[Path] | None:
    """Return the files that :func:`fashion_mnist` reads; None if it asks the hub.

    Raises
    ------
    DataError
        If one is missing.
    """
    if (found := _folder(folder)) is None:
        return None
    return [_find(found, name.format(part)) for part in _PARTS for name in (_IMAGES, _LABELS)]


def _folder(setting: str) -> Path | None:
    if setting:
        return Path(setting)
    return DEBIAN_FOLDER if DEBIAN_FOLDER.is_dir() else None


def _from_idx(folder: Path) -> Source:
    train, test = (_part(folder, part) for part in _PARTS)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"images in {folder} differ in size: {train[0].shape[1:]} to train, "
            f"{test[0].shape[1:]} to test"
        )
    return classified(TaskInfo("image", train[0].shape[1:], _NUM_CLASSES), train, test)


def _part(folder: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images of shape (n, 1, height, width) and their classes, shape (n,)."""
    images = read_idx(_find(folder, _IMAGES.format(name)), 3)
    classes = read_idx(_find(folder, _LABELS.format(name)), 1)
    if len(images) != len(classes):
        raise DataError(
            f"{folder} has {len(images)} {name} images but {len(classes)} {name} labels"
        )
    if classes.size and classes.max() >= _NUM_CLASSES:
        raise DataError(f"{folder} has a {name} label {classes.max()}, above 9")
    return images[:, np.newaxis], classes


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{folder} has neither {name} nor {name}.gz: set data.folder to a folder with the "
        "four IDX files of fashion-mnist, or run 'apt-get install dataset-fashion-mnist'"
    )
