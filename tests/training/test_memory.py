"""Memory of large batches, predicted from small ones."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import Examples, TaskInfo
from fl_opt.errors import ConfigError
from fl_opt.models import build_model
from fl_opt.profiling.allocations import allocation_timeline
from fl_opt.training.memory import (
    MemoryCost,
    _highest,
    _lines,
    are_lines,
    first_examples,
    measure_memory,
    model_bytes,
    needed_bytes,
    one_step,
)
from fl_opt.training.plan import Plan
from tests.training.tasks import linear_model, separable

CPU = torch.device("cpu")
PLAN = Plan(1, 1)

TASKS = {
    "mlp": (TaskInfo("tabular", (64,), 10), torch.float32),
    "cnn": (TaskInfo("image", (1, 28, 28), 10), torch.float32),
    "char_lm": (TaskInfo("text", (20,), 30), torch.int64),
}


def task(name: str, count: int) -> tuple[nn.Module, Examples]:
    info, dtype = TASKS[name]
    inputs = torch.zeros(count, *info.input_shape, dtype=dtype)
    shape = (count, *info.input_shape) if info.kind == "text" else (count,)
    return build_model(name, info, 1), Examples(inputs, torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", TASKS)
def test_the_peak_of_a_large_batch_is_foreseen(name: str, optimizer: str) -> None:
    model, examples = task(name, 192)
    settings = TrainSettings(optimizer=optimizer)  # type: ignore[arg-type]
    cost = measure_memory(model, examples, settings, PLAN)
    real = allocation_timeline(lambda: one_step(model, examples, settings, PLAN), CPU).max()
    assert real <= cost.peak(192) * 1.01
    assert cost.peak(192) <= real * 1.1


def test_nothing_but_time_is_taken_from_the_model() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), linear_model()).eval()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    measure_memory(model, separable(1), TrainSettings(learning_rate=1e3), PLAN)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in model.parameters())
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random)


def test_few_examples_are_used_again() -> None:
    examples = separable(3)
    some = first_examples(examples, 7)
    assert torch.equal(some.inputs, examples.inputs[[0, 1, 2, 0, 1, 2, 0]])
    assert torch.equal(some.targets, examples.targets[[0, 1, 2, 0, 1, 2, 0]])


def test_a_device_that_cannot_be_measured() -> None:
    with pytest.raises(ConfigError, match="memory of device 'meta' cannot be measured"):
        measure_memory(linear_model().to("meta"), separable(4), TrainSettings(), PLAN)


def test_steps_that_differ_cost_in_proportion() -> None:
    class Moody(nn.Module):
        """Allocates more often for large batches."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = linear_model()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            for _ in range(len(inputs)):
                inputs = inputs + 1
            logits: torch.Tensor = self.linear(inputs)
            return logits

    cost = measure_memory(Moody(), separable(16), TrainSettings(), PLAN)
    assert len(cost.lines) == 2
    assert cost.peak(1) == cost.peak(16)
    assert cost.peak(160) == 10 * cost.peak(16)


points = st.lists(st.integers(0, 10**9), min_size=1, max_size=30)


@given(points, st.data())
def test_only_lines_that_are_never_the_highest_are_left_out(
    small: list[int], data: st.DataObject
) -> None:
    grown = st.lists(st.integers(0, 10**9), min_size=len(small), max_size=len(small))
    large = [a + b for a, b in zip(small, data.draw(grown), strict=True)]
    lines = _lines(torch.tensor(small).numpy(), torch.tensor(large).numpy(), (8, 16))
    kept = MemoryCost(_highest(lines))
    assert set(kept.lines) <= set(lines)
    for number in (1, 2, 7, 8, 16, 1000, 10**6):
        assert kept.peak(number) == MemoryCost(tuple(lines)).peak(number)
    assert kept.peak(16) == max(large)


def test_what_is_needed_is_more_than_what_is_allocated() -> None:
    model = linear_model()
    cost = MemoryCost(((1e6, 0.0), (0.0, 1e5)))
    assert cost.bytes_per_example == 1e5
    assert cost.peak(5) == 10**6
    assert cost.peak(100) == 10**7
    needs = needed_bytes(cost, model, 3000, 100)
    assert needs == needed_bytes(cost, model, 0, 100) + 3000
    assert needs > 2 * 10**7
    large = nn.Linear(1000, 1000)
    assert model_bytes(large) == 4 * 1_001_000
    # Beside training a round holds several copies of the model.
    assert needed_bytes(MemoryCost(((0.0, 0.0),)), large, 0, 1) > 6 * 4 * 1_001_000


@pytest.mark.parametrize(
    "value", [None, [], {}, [1, 2], [[1]], [[1, "2"]], [[1, 2, 3]], [[1, math.inf]]]
)
def test_what_lines_cannot_be(value: object) -> None:
    assert not are_lines(value)
    assert are_lines([[1.5, 2], [3, 4.0]])
