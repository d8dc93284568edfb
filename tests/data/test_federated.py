from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from fl_opt.config import ConfigValue, DataSettings, load_settings
from fl_opt.data import (
    FederatedDataset,
    StreamedExamples,
    catalogue,
    division,
    in_memory,
    load_dataset,
)
from fl_opt.data import federated as module
from fl_opt.data.division import divide
from fl_opt.data.examples import Examples, TaskInfo
from fl_opt.data.partition import partition
from fl_opt.data.source import Source
from fl_opt.data.synthetic import synthetic
from fl_opt.errors import ConfigError, DataError


def load(num_clients: int, **config: ConfigValue) -> FederatedDataset:
    keys = {
        key.replace("__", ".").replace("_", "-"): value
        for key, value in {"dataset": "synthetic", "data__partition": "iid", **config}.items()
    }
    return load_dataset(load_settings(keys), num_clients)


def of_source(source: Source, **settings: Any) -> FederatedDataset:
    chosen = DataSettings(partition="iid", validation_fraction=0.0, **settings)
    return FederatedDataset(source, divide(source, chosen, 1, seed=1), chosen)


@pytest.fixture
def fresh() -> Iterator[None]:
    module._federated.cache_clear()
    module._prepared.cache_clear()
    yield
    module._federated.cache_clear()
    module._prepared.cache_clear()


def test_reference_workload_is_ten_clients_of_two_hundred() -> None:
    dataset = load(10, data__validation_fraction=0.0)
    assert [len(dataset.client(i).train) for i in range(10)] == [200] * 10
    assert [len(dataset.client(i).validation) for i in range(10)] == [0] * 10
    assert len(dataset.test) == 500


def test_train_and_validation_are_disjoint_and_complete() -> None:
    dataset = load(10, data__partition="dirichlet(0.5)", data__validation_fraction=0.25)
    rows: list[tuple[float, ...]] = []
    for i in range(10):
        data = dataset.client(i)
        share = len(data.validation) / (len(data.train) + len(data.validation))
        assert share == pytest.approx(0.25, abs=0.02)
        rows += [tuple(row) for row in in_memory(data.train).inputs.tolist()]
        rows += [tuple(row) for row in in_memory(data.validation).inputs.tolist()]
    assert len(rows) == 2000
    assert len(set(rows)) == 2000


def test_a_client_keeps_an_example_to_train_on() -> None:
    dataset = load(10, data__max_examples=10, data__validation_fraction=0.9)
    assert {
        (len(dataset.client(i).train), len(dataset.client(i).validation)) for i in range(10)
    }
    assert all(len(dataset.client(i).train) == 1 for i in range(10))
    assert all(len(dataset.client(i).validation) == 0 for i in range(10))


def test_max_examples_limits_training_only() -> None:
    dataset = load(4, data__max_examples=100, data__validation_fraction=0.0)
    assert sum(len(dataset.client(i).train) for i in range(4)) == 100
    assert len(dataset.test) == 500


def test_more_clients_than_examples() -> None:
    with pytest.raises(DataError, match="5 training examples are too few for 6 clients"):
        load(6, data__max_examples=5)


def test_unknown_partition_id() -> None:
    with pytest.raises(DataError, match=r"no partition 10: .* from 0 to 9"):
        load(10).client(10)
    with pytest.raises(DataError, match="no partition -1"):
        load(10).client(-1)


def test_unknown_dataset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'digitz'.*hub:<dataset-id>; did you mean 'digits'"):
        load(10, dataset="digitz")


@pytest.mark.usefixtures("fresh")
def test_hub_prefix_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake_hub(dataset_id: str) -> Source:
        asked.append(dataset_id)
        raise DataError("not here")

    monkeypatch.setattr(catalogue, "hub", fake_hub)
    with pytest.raises(DataError, match="not here"):
        load(10, dataset="hub:some/data")
    assert asked == ["some/data"]


@pytest.mark.usefixtures("fresh")
def test_loaded_and_partitioned_once_however_many_clients_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_source = Mock(wraps=synthetic)
    divide = Mock(wraps=partition)
    monkeypatch.setattr(catalogue, "synthetic", load_source)
    monkeypatch.setattr(division, "partition", divide)
    with ThreadPoolExecutor(8) as pool:
        loaded = set(pool.map(lambda _: load(10, data__cache_limit_mb=0), range(32)))
    assert len(loaded) == 1
    assert (load_source.call_count, divide.call_count) == (1, 1)
    load(5, data__cache_limit_mb=0)  # another division of the same examples
    assert (load_source.call_count, divide.call_count) == (1, 2)


def test_what_a_client_holds_does_not_depend_on_what_else_was_asked_for() -> None:
    first = load(10).client(7)
    for i in range(10):
        load(10).client(i)
    again = load(10, num_server_rounds=3).client(7)
    assert torch.equal(in_memory(first.train).inputs, in_memory(again.train).inputs)
    other = load(10, seed=7).client(7)
    assert not torch.equal(in_memory(first.train).inputs, in_memory(other.train).inputs)


def test_recent_clients_are_kept_and_old_ones_are_not() -> None:
    dataset = load(100)
    assert dataset.client(3) is dataset.client(3)
    first = dataset.client(0)
    for i in range(1, 100):
        dataset.client(i)
    assert dataset.client(0) is not first


def test_stored_bytes_become_model_inputs() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    examples = Examples(pixels, torch.tensor([0, 1, 2]))
    dataset = of_source(Source(TaskInfo("image", (1, 1, 1), 3), examples, examples))
    expected = torch.tensor([0.0, 0.2, 1.0])
    torch.testing.assert_close(in_memory(dataset.test).inputs.flatten(), expected)
    train = in_memory(dataset.client(0).train)
    torch.testing.assert_close(train.inputs.flatten(), expected[train.targets])

    codes = torch.tensor([[3, 4]], dtype=torch.uint8)
    text = Examples(codes, codes + 1)
    test = in_memory(of_source(Source(TaskInfo("text", (2,), 9), text, text)).test)
    assert test.inputs.tolist() == [[3, 4]]
    assert test.targets.tolist() == [[4, 5]]
    assert test.inputs.dtype == test.targets.dtype == torch.int64


def megabyte_of_pixels() -> Source:
    """250 images of 1,000 pixels: 1.002 MB when they are ready, with their classes."""
    pixels = torch.arange(250_000).remainder(251).to(torch.uint8).reshape(250, 1, 1, 1000)
    train = Examples(pixels, torch.arange(250) % 3)
    return Source(TaskInfo("image", (1, 1, 1000), 3), train, train)


@pytest.mark.parametrize(
    ("loading", "limit_mb", "streamed"),
    [
        ("auto", 2, False),
        ("auto", 1, True),
        ("resident", 1, False),
        ("stream", 2, True),
    ],
)
def test_what_does_not_fit_is_streamed(loading: str, limit_mb: int, streamed: bool) -> None:
    dataset = of_source(megabyte_of_pixels(), loading=loading, resident_limit_mb=limit_mb)
    parts = [dataset.client(0).train, dataset.client(0).validation, dataset.test]
    assert [isinstance(part, StreamedExamples) for part in parts] == [streamed] * 3
    assert [part.nbytes for part in parts] == [1_002_000, 0, 1_002_000]


def test_streamed_examples_are_those_in_memory() -> None:
    kinds = [
        of_source(megabyte_of_pixels(), loading=loading) for loading in ("resident", "stream")
    ]
    resident, streamed = (kind.client(0).train for kind in kinds)
    indices = torch.tensor([249, 0, 7])
    for one, other in (
        (in_memory(resident), in_memory(streamed)),
        (resident.batch(100, 300), streamed.batch(100, 300)),
        (resident.subset(indices), streamed.subset(indices)),
        (in_memory(kinds[0].test), in_memory(kinds[1].test)),
    ):
        assert one.inputs.dtype == other.inputs.dtype == torch.float32
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
    assert len(resident.batch(100, 300)) == 150
