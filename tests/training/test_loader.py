from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.data import AnyExamples, Examples, StreamedExamples
from fl_opt.data.mapped import MappedExamples
from fl_opt.data.source import ready
from fl_opt.errors import DataError
from fl_opt.training import loader
from fl_opt.training.loader import batches

CPU = torch.device("cpu")
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def stored(count: int) -> Examples:
    """Text of four characters, each example of its own codes."""
    codes = torch.arange(4 * count).remainder(251).to(torch.uint8).reshape(count, 4)
    return Examples(codes, codes + 1)


def both_kinds(count: int, seed: int = 5) -> tuple[Examples, StreamedExamples]:
    """The same examples in memory and streamed: ``count`` of twice as many, in any order."""
    rows = torch.randperm(2 * count, generator=torch.Generator().manual_seed(seed))[:count]
    every = stored(2 * count)
    return ready(every.subset(rows)), StreamedExamples(every, rows)


def collect(examples: AnyExamples, size: int, steps: int, workers: int = 0) -> Batches:
    found = batches(
        examples, batch_size=size, num_steps=steps, seed=9, device=CPU, workers=workers
    )
    return list(found)


def one_by_one(examples: Examples, size: int, steps: int) -> Iterator[list[list[int]]]:
    """Return the inputs of batches as a plain loop makes them."""
    generator = torch.Generator().manual_seed(9)
    while True:
        order = torch.randperm(len(examples), generator=generator).tolist()
        for start in range(0, len(order), size):
            if not steps:
                return
            steps -= 1
            yield [examples.inputs[i].tolist() for i in order[start : start + size]]


def assert_same(found: Batches, expected: Batches) -> None:
    assert len(found) == len(expected)
    for pair, wanted in zip(found, expected, strict=True):
        for tensor, other in zip(pair, wanted, strict=True):
            assert tensor.dtype == other.dtype
            assert torch.equal(tensor, other)


@given(
    count=st.integers(1, 40),
    size=st.integers(1, 50),
    steps=st.integers(0, 30),
    block_bytes=st.integers(0, 3000),
)
def test_both_kinds_give_the_batches_of_a_plain_loop(
    count: int, size: int, steps: int, block_bytes: int
) -> None:
    resident, streamed = both_kinds(count)
    found = collect(resident, size, steps)
    assert [inputs.tolist() for inputs, _ in found] == list(one_by_one(resident, size, steps))
    assert all(torch.equal(inputs + 1, targets) for inputs, targets in found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_BLOCK_BYTES", block_bytes)
        assert_same(collect(resident, size, steps), found)
        assert_same(collect(streamed, size, steps), found)


@pytest.mark.parametrize(
    ("block_rows", "steps", "gathered"),
    [
        (1000, 20, [100] * 20),  # a small client: once an epoch
        (1000, 3, [30] * 3),  # no more than is needed
        (35, 12, [30] * 9 + [10] + [20] * 2),  # whole batches, never of two epochs
        (1, 2, [10] * 2),  # at least one batch
    ],
)
def test_batches_are_views_of_blocks(
    block_rows: int, steps: int, gathered: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    row_bytes = 2 * 4 * 8
    monkeypatch.setattr(loader, "_BLOCK_BYTES", block_rows * row_bytes)
    for examples in both_kinds(100):
        found = collect(examples, 10, steps)
        rows = [inputs.untyped_storage().nbytes() // (4 * 8) for inputs, _ in found]
        assert rows == gathered


def test_only_what_is_trained_on_soon_is_read() -> None:
    asked: list[int] = []

    class Counting(StreamedExamples):
        def subset(self, indices: torch.Tensor) -> Examples:
            asked.append(len(indices))
            return super().subset(indices)

    _, streamed = both_kinds(1000)
    counting = Counting(streamed.stored, streamed.rows)
    row_bytes = 2 * 4 * 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_BLOCK_BYTES", 25 * row_bytes)
        found = batches(counting, batch_size=10, num_steps=10**9, seed=1, device=CPU)
        for _ in range(5):  # two blocks of two batches, and one batch of the third
            next(found)
        found.close()  # type: ignore[attr-defined]
    assert 3 <= len(asked) <= 5  # and at most two more ahead
    assert set(asked) == {20}
    assert not [t for t in threading.enumerate() if t.name.startswith("fl-opt-loader")]


def test_rows_of_a_memory_map_in_worker_processes(tmp_path: Path) -> None:
    every = stored(60)
    paths = tmp_path / "inputs.npy", tmp_path / "targets.npy"
    for path, tensor in zip(paths, (every.inputs, every.targets), strict=True):
        np.save(path, tensor.numpy())
    rows = torch.arange(59, 9, -1)
    streamed = StreamedExamples(MappedExamples.open(*paths), rows)
    resident = ready(every.subset(rows))
    state = torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_BLOCK_BYTES", 1)
        found = collect(streamed, 16, 9, workers=2)
    assert_same(found, collect(resident, 16, 9))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_goes_wrong_in_the_reader_is_raised() -> None:
    broken = StreamedExamples(stored(10), torch.tensor([0, 1, 99]))
    with pytest.raises(IndexError, match="out of range"):
        collect(broken, 2, 4)


def test_without_examples_there_are_no_batches() -> None:
    resident, streamed = both_kinds(3)
    for empty in (resident.batch(0, 0), StreamedExamples(streamed.stored, streamed.rows[:0])):
        with pytest.raises(DataError, match="no examples to train on"):
            batches(empty, batch_size=2, num_steps=1, seed=1, device=CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("workers", [0, 1])
def test_on_a_gpu(workers: int) -> None:
    device = torch.device("cuda")
    for examples in both_kinds(1000):
        found = [
            (inputs.cpu(), targets.cpu())
            for inputs, targets in batches(
                examples, batch_size=32, num_steps=70, seed=9, device=device, workers=workers
            )
            if inputs.device.type == targets.device.type == "cuda"
        ]
        assert_same(found, collect(examples, 32, 70))
