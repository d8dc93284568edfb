"""Any image or tabular classification dataset that the ``datasets`` library can load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.data.examples import TaskInfo, TaskKind
from fl_opt.data.source import Source, classified
from fl_opt.errors import DataError

if TYPE_CHECKING:
    import datasets

_TEST_SPLITS = ("test", "validation", "valid")
_TEST_FRACTION = 0.2
_TEST_SEED = 0
_LABEL_NAMES = ("label", "labels", "target", "class", "y")


def hub(dataset_id: str) -> Source:
    """Load a dataset from the hub, or from a local folder that ``datasets`` understands.

    The first column of type ``ClassLabel``, else an integer one named ``label``,
    ``labels``, ``target``, ``class`` or ``y``, holds the classes. Inputs are the first
    image column, where there is one, else all other numeric columns side by side, unscaled.
    The test set is the split ``test``, else ``validation``, else a fifth of ``train``.

    Parameters
    ----------
    dataset_id : str
        As :func:`datasets.load_dataset` takes it, such as ``"ylecun/mnist"``.

    Raises
    ------
    DataError
        If the dataset cannot be loaded or has no such columns.
    """
    splits = _load(dataset_id)
    if "train" not in splits:
        raise DataError(f"dataset {dataset_id!r} has no split 'train', only {list(splits)}")
    test_name = next((name for name in _TEST_SPLITS if name in splits), None)
    if test_name is None:
        test_name = "test"
        splits = splits["train"].train_test_split(test_size=_TEST_FRACTION, seed=_TEST_SEED)
    label = _label_column(splits["train"], dataset_id)
    train_x, train_y = _arrays(splits["train"], label, dataset_id)
    test_x, test_y = _arrays(splits[test_name], label, dataset_id)
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(
            f"dataset {dataset_id!r}: inputs have shape {train_x.shape[1:]} in 'train' but "
            f"{test_x.shape[1:]} in {test_name!r}"
        )
    num_classes = int(max(train_y.max(), test_y.max())) + 1
    kind: TaskKind = "image" if train_x.dtype == np.uint8 else "tabular"
    info = TaskInfo(kind, train_x.shape[1:], num_classes)
    return classified(info, (train_x, train_y), (test_x, test_y))


def hub_files(dataset_id: str) -> list[Path] | None:
    """Return the files of a local folder; None for what lies on the hub.

    To ask the hub for the revision takes as long as to load the copy that ``datasets`` keeps.
    """
    folder = Path(dataset_id)
    return sorted(filter(Path.is_file, folder.rglob("*"))) if folder.is_dir() else None


def _load(dataset_id: str) -> datasets.DatasetDict:
    # Half a second to import, which runs on other data need not pay.
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return datasets.load_dataset(dataset_id)
    except (OSError, ValueError, DatasetsError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"cannot load dataset {dataset_id!r}: {reason}") from None


def _label_column(split: datasets.Dataset, dataset_id: str) -> str:
    import datasets

    columns = split.features
    for name, feature in columns.items():
        if isinstance(feature, datasets.ClassLabel):
            return str(name)
    for name in _LABEL_NAMES:
        if name in columns and str(getattr(columns[name], "dtype", "")).startswith("int"):
            return name
    raise DataError(f"dataset {dataset_id!r} has no column of classes among {list(columns)}")


def _arrays(
    split: datasets.Dataset, label: str, dataset_id: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return inputs of shape (n, ...) and classes of shape (n,)."""
    import datasets

    if not len(split):
        raise DataError(f"dataset {dataset_id!r} has an empty split")
    split = split.with_format("numpy")
    classes = np.asarray(split[label][:], np.int64)
    if classes.min() < 0:
        raise DataError(f"dataset {dataset_id!r} has examples without a class in {label!r}")
    for name, feature in split.features.items():
        if isinstance(feature, datasets.Image):
            what = f"column {name!r} of dataset {dataset_id!r}"
            return _images(split[name][:], what), classes
    columns = [
        _vectors(split[name][:], f"column {name!r} of dataset {dataset_id!r}")
        for name in split.features
        if name != label and _is_numeric(split.features[name])
    ]
    if not columns:
        raise DataError(f"dataset {dataset_id!r} has neither an image nor a numeric column")
    return np.concatenate(columns, axis=1), classes


def _images(pixels: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """Bring images of shape (n, h, w) or (n, h, w, channels) to (n, channels, h, w)."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise DataError(f"{what} must hold 8-bit images of one size and mode")
    return pixels[:, np.newaxis] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)


def _vectors(values: NDArray[Any], what: str) -> NDArray[np.float32]:
    if values.dtype == object:
        raise DataError(f"{what} must hold numbers, or vectors of one length, without gaps")
    vectors = values.reshape(len(values), -1).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise DataError(f"{what} holds values that are not finite")
    return vectors


def _is_numeric(feature: Any) -> bool:
    import datasets

    while isinstance(feature, datasets.List):
        feature = feature.feature
    dtype = str(getattr(feature, "dtype", ""))
    return dtype.startswith(("int", "uint", "float"))
