from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fl_opt.data import TaskInfo
from fl_opt.data.hub import hub
from fl_opt.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(folder: Path, **splits: datasets.Dataset) -> str:
    """Write splits as a folder that ``load_dataset`` reads."""
    (folder / "data").mkdir()
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}-00000.parquet")
    return str(folder)


def images(count: int, mode: str = "RGB", size: int = 6) -> datasets.Dataset:
    shape = (size, size + 1, 3) if mode == "RGB" else (size, size + 1)
    pictures = [
        Image.fromarray(np.full(shape, fill_value=i, dtype=np.uint8)) for i in range(count)
    ]
    labels = [i % 3 for i in range(count)]
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    return datasets.Dataset.from_dict({"picture": pictures, "kind": labels}, features)


def table(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "height": [float(i) for i in range(count)],
            "name": ["x"] * count,
            "scores": [[i, 2 * i] for i in range(count)],
            "target": [i % 2 for i in range(count)],
        }
    )


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_images(tmp_path: Path, mode: str, channels: int) -> None:
    source = hub(write(tmp_path, train=images(6, mode), test=images(3, mode)))
    assert source.info == TaskInfo("image", (channels, 6, 7), 3)
    assert source.train.inputs.dtype == torch.uint8
    assert torch.all(source.train.inputs[5] == 5)
    assert source.train.targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(source.test) == 3


def test_numeric_columns_are_put_side_by_side(tmp_path: Path) -> None:
    source = hub(write(tmp_path, train=table(10), validation=table(4)))
    assert source.info == TaskInfo("tabular", (3,), 2)
    assert source.train.inputs[3].tolist() == [3.0, 3.0, 6.0]
    assert source.classes is not None
    assert source.classes.tolist() == [0, 1] * 5
    assert len(source.test) == 4


def test_a_fifth_is_for_testing_where_there_is_no_other_split(tmp_path: Path) -> None:
    folder = write(tmp_path, train=table(20))
    source, again = hub(folder), hub(folder)
    assert (len(source.train), len(source.test)) == (16, 4)
    assert torch.equal(source.test.inputs, again.test.inputs)


def test_refuses_columns_it_cannot_use(tmp_path: Path) -> None:
    words = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    (tmp_path / "words").mkdir()
    with pytest.raises(DataError, match="neither an image nor a numeric column"):
        hub(write(tmp_path / "words", train=words, test=words))
    unlabelled = datasets.Dataset.from_dict({"a": [1.0, 2.0], "b": [0, 1]})
    (tmp_path / "unlabelled").mkdir()
    with pytest.raises(DataError, match=r"no column of classes among \['a', 'b'\]"):
        hub(write(tmp_path / "unlabelled", train=unlabelled, test=unlabelled))


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ({"a": [[1.0], [2.0, 3.0]], "label": [0, 1]}, "vectors of one length"),
        ({"a": [1.0, None], "label": [0, 1]}, "without gaps"),
        ({"a": [1.0, float("inf")], "label": [0, 1]}, "not finite"),
        ({"a": [1.0, 2.0], "label": [0, -1]}, "without a class"),
    ],
)
def test_refuses_values_it_cannot_use(
    tmp_path: Path, column: dict[str, list[object]], reason: str
) -> None:
    split = datasets.Dataset.from_dict(column)
    with pytest.raises(DataError, match=reason):
        hub(write(tmp_path, train=split, test=split))


def test_refuses_images_of_several_sizes(tmp_path: Path) -> None:
    mixed = datasets.concatenate_datasets([images(2, size=6), images(2, size=8)])
    with pytest.raises(DataError, match="8-bit images of one size"):
        hub(write(tmp_path, train=mixed, test=images(2)))
    (tmp_path / "other").mkdir()
    with pytest.raises(
        DataError, match=r"shape \(3, 6, 7\) in 'train' but \(3, 8, 9\) in 'test'"
    ):
        hub(write(tmp_path / "other", train=images(2, size=6), test=images(2, size=8)))


def test_a_missing_dataset_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot load dataset .*absent") as caught:
        hub(str(tmp_path / "absent"))
    assert "\n" not in str(caught.value)
