from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
import torch

from fl_opt.config import ConfigValue, DataSettings, load_settings
from fl_opt.data import FederatedDataset, load_dataset
from fl_opt.data import federated as module
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


@pytest.fixture
def fresh() -> Iterator[None]:
    module._federated.cache_clear()
    module._source.cache_clear()
    yield
    module._federated.cache_clear()
    module._source.cache_clear()


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
        rows += [tuple(row) for row in data.train.inputs.tolist()]
        rows += [tuple(row) for row in data.validation.inputs.tolist()]
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

    monkeypatch.setattr(module, "hub", fake_hub)
    with pytest.raises(DataError, match="not here"):
        load(10, dataset="hub:some/data")
    assert asked == ["some/data"]


@pytest.mark.usefixtures("fresh")
def test_loaded_and_partitioned_once_however_many_clients_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_source = Mock(wraps=synthetic)
    divide = Mock(wraps=partition)
    monkeypatch.setattr(module, "synthetic", load_source)
    monkeypatch.setattr(module, "partition", divide)
    with ThreadPoolExecutor(8) as pool:
        loaded = set(pool.map(lambda _: load(10), range(32)))
    assert len(loaded) == 1
    assert (load_source.call_count, divide.call_count) == (1, 1)
    load(5)  # another division of the same examples
    assert (load_source.call_count, divide.call_count) == (1, 2)


def test_what_a_client_holds_does_not_depend_on_what_else_was_asked_for() -> None:
    first = load(10).client(7)
    for i in range(10):
        load(10).client(i)
    again = load(10, num_server_rounds=3).client(7)
    assert torch.equal(first.train.inputs, again.train.inputs)
    other = load(10, seed=7).client(7)
    assert not torch.equal(first.train.inputs, other.train.inputs)


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
    source = Source(TaskInfo("image", (1, 1, 1), 3), examples, examples)
    dataset = FederatedDataset(
        source, DataSettings(partition="iid", validation_fraction=0.0), 1, seed=1
    )
    torch.testing.assert_close(dataset.test.inputs.flatten(), torch.tensor([0.0, 0.2, 1.0]))
    train = dataset.client(0).train
    torch.testing.assert_close(
        train.inputs.flatten(), torch.tensor([0.0, 0.2, 1.0])[train.targets]
    )

    codes = torch.tensor([[3, 4]], dtype=torch.uint8)
    text = Examples(codes, codes + 1)
    source = Source(TaskInfo("text", (2,), 9), text, text)
    test = FederatedDataset(source, DataSettings(partition="iid"), 1, seed=1).test
    assert test.inputs.tolist() == [[3, 4]]
    assert test.targets.tolist() == [[4, 5]]
    assert test.inputs.dtype == test.targets.dtype == torch.int64
