from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from fl_opt.client import torch_client as module
from fl_opt.client.torch_client import TorchClient, build_torch_client
from fl_opt.config import ConfigValue, Settings, load_settings
from fl_opt.errors import DataError, ModelError
from fl_opt.models import build_model


def make_settings(**changes: ConfigValue) -> Settings:
    config = {"dataset": "synthetic", "data.partition": "iid", "train.device": "cpu"}
    return load_settings({**config, **changes})


@pytest.fixture
def client() -> TorchClient:
    return build_torch_client(make_settings(), partition_id=2, num_partitions=10)


@pytest.fixture
def start(client: TorchClient) -> list[NDArray[Any]]:
    """Model to start from: other weights than the client's model happens to hold."""
    rng = np.random.default_rng(1)
    return [
        rng.normal(0, 0.1, array.shape).astype(array.dtype)
        for array in client.get_parameters({})
    ]


def test_fit_trains_from_the_parameters_given(
    client: TorchClient, start: list[NDArray[Any]]
) -> None:
    given = [array.copy() for array in start]
    trained, num_examples, metrics = client.fit(start, {"server-round": 1})
    assert num_examples == 180  # a tenth of 200 is for validation
    assert metrics["num-samples"] == 540.0
    assert 0 < float(metrics["train-loss"]) < 10
    for before, after, array in zip(given, trained, start, strict=True):
        assert after.shape == before.shape
        assert not np.array_equal(after, before)
        assert_array_equal(array, before)  # not trained in place


def test_fit_depends_on_round_and_partition_only(
    client: TorchClient, start: list[NDArray[Any]]
) -> None:
    first, _, _ = client.fit(start, {"server-round": 3})
    other_round, _, _ = client.fit(start, {"server-round": 4})
    neighbour = build_torch_client(make_settings(), 3, 10)
    neighbour.fit(start, {"server-round": 3})
    again, _, _ = client.fit(start, {"server-round": 3})
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other_round, strict=True))


def test_evaluate_uses_the_validation_examples() -> None:
    client = build_torch_client(make_settings(dataset="digits"), 0, 10)
    model = client.get_parameters({})
    loss, num_examples, _ = client.evaluate(model, {})
    assert num_examples == 14
    for server_round in range(1, 6):
        model, _, _ = client.fit(model, {"server-round": server_round})
    after, _, metrics = client.evaluate(model, {})
    assert after < loss / 2
    assert float(metrics["accuracy"]) > 0.7


def test_evaluate_without_validation_examples(start: list[NDArray[Any]]) -> None:
    settings = make_settings(**{"data.validation-fraction": 0.0})
    assert build_torch_client(settings, 0, 10).evaluate(start, {}) == (
        0.0,
        0,
        {"accuracy": 0.0},
    )


def test_arrays_of_another_model(client: TorchClient, start: list[NDArray[Any]]) -> None:
    with pytest.raises(ModelError, match="received 5 arrays, the model has 6"):
        client.fit(start[:-1], {"server-round": 1})
    with pytest.raises(ModelError, match="has shape"):
        client.evaluate(start[::-1], {})


def test_clients_of_a_process_share_one_model_and_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[torch.nn.Module] = []

    def counting(*args: Any) -> torch.nn.Module:
        built.append(build_model(*args))
        return built[-1]

    monkeypatch.setattr(module, "build_model", counting)
    module._shared_model.cache_clear()
    clients = [build_torch_client(make_settings(), i, 10) for i in range(10)]
    assert len(built) == 1
    assert all(client._model is built[0] for client in clients)


def test_no_such_partition() -> None:
    with pytest.raises(DataError, match="no partition 10"):
        build_torch_client(make_settings(), 10, 10)


def test_torch_threads_are_left_alone(client: TorchClient, start: list[NDArray[Any]]) -> None:
    threads = torch.get_num_threads()
    client.fit(start, {"server-round": 1})
    assert torch.get_num_threads() == threads


def test_fit_trains_a_narrower_model_of_the_shapes_it_gets(
    client: TorchClient, start: list[NDArray[Any]]
) -> None:
    narrow = [start[0][:40], start[1][:40], start[2][:40, :40], start[3][:40]]
    narrow += [start[4][:, :40], start[5]]
    trained, num_examples, _ = client.fit([a.copy() for a in narrow], {"server-round": 1})
    assert [a.shape for a in trained] == [a.shape for a in narrow]
    assert not any(np.array_equal(a, b) for a, b in zip(trained, narrow, strict=True))
    assert num_examples == 180
    whole, _, _ = client.fit(start, {"server-round": 1})  # the whole one is as it was
    assert [a.shape for a in whole] == [a.shape for a in start]
    again, _, _ = client.fit(narrow, {"server-round": 1})
    assert all(np.array_equal(a, b) for a, b in zip(trained, again, strict=True))


def test_fit_leaves_pruned_weights_at_zero_if_it_is_told(
    client: TorchClient, start: list[NDArray[Any]]
) -> None:
    start = [a * (np.abs(a) > 0.1) if a.ndim > 1 else a for a in start]
    pruned = [(a == 0) & (a.ndim > 1) for a in start]
    kept, _, _ = client.fit(start, {"server-round": 1, "pruned": True})
    assert not any(a[zero].any() for a, zero in zip(kept, pruned, strict=True))
    free, _, _ = client.fit(start, {"server-round": 1})
    assert any(a[zero].any() for a, zero in zip(free, pruned, strict=True))
