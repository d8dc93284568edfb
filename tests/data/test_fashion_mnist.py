from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fl_opt.data import TaskInfo
from fl_opt.data import fashion_mnist as module
from fl_opt.data.fashion_mnist import DEBIAN_FOLDER, fashion_mnist
from fl_opt.errors import DataError
from tests.data.idx_files import idx_bytes, write_fashion_mnist


def test_reads_a_folder_of_packed_and_plain_files(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    source = fashion_mnist(str(tmp_path))
    assert source.info == TaskInfo("image", (1, 28, 28), 10)
    assert source.train.inputs.shape == (40, 1, 28, 28)
    assert source.train.inputs.dtype == torch.uint8
    assert source.test.targets.tolist() == list(range(10))


def test_debian_folder_is_found_without_being_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion_mnist(tmp_path, num_train=20)
    monkeypatch.setattr(module, "DEBIAN_FOLDER", tmp_path)
    assert len(fashion_mnist("").train) == 20


def test_without_files_or_hub_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(module, "HUB_ID", str(tmp_path / "no-such-dataset"))
    with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist.*data.folder"):
        fashion_mnist("")


def test_a_named_folder_without_the_files_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither train-images-idx3-ubyte nor .*gz"):
        fashion_mnist(str(tmp_path))


def test_refuses_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(39, np.uint8)))
    with pytest.raises(DataError, match="40 train images but 39 train labels"):
        fashion_mnist(str(tmp_path))
    labels.write_bytes(idx_bytes(np.full(40, 10, np.uint8)))
    with pytest.raises(DataError, match="train label 10, above 9"):
        fashion_mnist(str(tmp_path))


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_the_real_data() -> None:
    source = fashion_mnist("")
    assert (len(source.train), len(source.test)) == (60_000, 10_000)
    assert torch.bincount(source.train.targets).tolist() == [6000] * 10
    # Published mean of the training pixels: 0.2860.
    assert source.train.inputs.float().mean().item() / 255 == pytest.approx(0.2860, abs=1e-4)
