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
    if folder or DEBIAN_FOLDER.is_dir():
        return _from_idx(Path(folder) if folder else DEBIAN_FOLDER)
    try:
        return hub(HUB_ID)
    except DataError as error:
        raise DataError(
            "fashion-mnist is not on this machine: run 'apt-get install "
            "dataset-fashion-mnist', or set data.folder to a folder with its four IDX files "
            f"(from the hub: {error})"
        ) from None


def _from_idx(folder: Path) -> Source:
    train, test = _part(folder, "train"), _part(folder, "t10k")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"images in {folder} differ in size: {train[0].shape[1:]} to train, "
            f"{test[0].shape[1:]} to test"
        )
    return classified(TaskInfo("image", train[0].shape[1:], _NUM_CLASSES), train, test)


def _part(folder: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images of shape (n, 1, height, width) and their classes, shape (n,)."""
    images = read_idx(_find(folder, f"{name}-images-idx3-ubyte"), 3)
    classes = read_idx(_find(folder, f"{name}-labels-idx1-ubyte"), 1)
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
