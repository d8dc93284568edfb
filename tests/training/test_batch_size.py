"""The search for the fastest batch size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.training import batch_size
from fl_opt.training.batch_size import (
    candidate_sizes,
    find_batch_size,
    measure_speeds,
    smallest_of_the_fastest,
    speed_of,
)
from tests.training.tasks import linear_model, separable

AUTO = TrainSettings(batch_size="auto")


@pytest.mark.parametrize(
    ("examples", "sizes"),
    [
        (10_000, [16, 32, 64, 128, 256, 512]),
        (1024, [16, 32, 64, 128, 256, 512]),
        (1023, [16, 32, 64, 128, 256]),
        (32, [16]),
        (31, [15]),
        (1, [1]),
    ],
)
def test_sizes_leave_two_batches_of_the_examples(examples: int, sizes: list[int]) -> None:
    assert candidate_sizes(examples) == sizes


def test_of_sizes_that_are_as_good_the_smallest() -> None:
    assert smallest_of_the_fastest({16: 90.0, 32: 96.0, 64: 100.0}) == 32
    assert smallest_of_the_fastest({16: 50.0, 32: 94.0, 64: 100.0}) == 64


class Counted(nn.Module):
    """A linear model that counts the batches it sees, in all its copies."""

    batches: list[int] = []  # noqa: RUF012 -- shared by the copies

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear_model()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(inputs))
        logits: torch.Tensor = self.linear(inputs)
        return logits


@pytest.fixture
def counted() -> Counted:
    Counted.batches.clear()
    return Counted()


def test_speed_is_of_real_training(counted: Counted) -> None:
    speed = speed_of(counted, separable(128), AUTO, 32, steps=4)
    assert speed > 0
    assert counted.batches == [32] * 4
    assert not any(p.any() for p in counted.parameters())  # a copy was trained


def test_passes_are_those_that_training_will_make(counted: Counted) -> None:
    for micro in (64, 10):
        speed_of(counted, separable(100), TrainSettings(micro_batch_size=micro), 32, steps=1)
    assert counted.batches == [32, 10, 10, 10, 2]


def test_is_found_for_real_and_remembered(counted: Counted, tmp_path: Path) -> None:
    examples = separable(256)

    def found() -> int:
        return find_batch_size(
            counted, examples, AUTO, fits=lambda size: size <= 64, folder=tmp_path
        )

    first = found()
    assert first in (16, 32, 64)
    assert set(counted.batches) <= {16, 32, 64}
    assert 16 in counted.batches
    counted.batches.clear()
    assert found() == first
    assert counted.batches == []


def test_the_least_is_tried_even_where_it_does_not_fit(
    counted: Counted, tmp_path: Path
) -> None:
    size = find_batch_size(counted, separable(256), AUTO, fits=lambda _: False, folder=tmp_path)
    assert size == 16  # in smaller passes, then
    assert counted.batches == []


def test_a_damaged_memory_is_not_believed(counted: Counted, tmp_path: Path) -> None:
    def found() -> int:
        return find_batch_size(
            counted, separable(64), AUTO, fits=lambda _: True, folder=tmp_path
        )

    found()
    (path,) = (tmp_path / "trials").iterdir()
    text = path.read_text()
    path.write_text(text.replace('"16":', '"-16":'))
    assert found() in (16, 32)


@pytest.mark.parametrize(
    ("per_second", "tried"),
    [
        ({16: 100.0, 32: 150.0, 64: 60.0, 128: 900.0}, [16, 32, 64]),
        ({16: 100.0, 32: 150.0, 64: 120.0, 128: 900.0}, [16, 32, 64, 128]),
    ],
)
def test_the_search_ends_at_what_is_clearly_slower(
    per_second: dict[int, float], tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        batch_size,
        "speed_of",
        lambda model, examples, settings, size, steps=0: per_second[size],
    )
    speeds = measure_speeds(linear_model(), separable(8), AUTO, per_second)
    assert speeds == {size: per_second[size] for size in tried}


def test_the_search_ends_in_time() -> None:
    speeds = measure_speeds(linear_model(), separable(64), AUTO, [16, 32], seconds=0.0)
    assert list(speeds) == [16]
