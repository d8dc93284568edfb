"""Batches of examples, in an order given by a seed.

Batches are not gathered one by one but in *blocks* of a few megabytes, of which they are views:
for small clients that is once an epoch. Streamed examples are read while earlier ones are
trained on. Both ways give the same batches bit for bit.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fl_opt.data import AnyExamples, Examples, StreamedExamples
from fl_opt.errors import DataError

_BLOCK_BYTES: Final = 4_000_000
"""Little enough for the caches of a CPU: to gather 85 MB at once takes five times as long."""

_AHEAD: Final = 2
"""Blocks that are read while another is trained on."""


def batches(
    examples: AnyExamples,
    *,
    batch_size: int,
    num_steps: int,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets of shuffled batches, epoch after epoch.

    Parameters
    ----------
    examples : Examples or StreamedExamples
        At least one.
    batch_size : int
        At least 1. The last batch of an epoch may be smaller.
    num_steps : int
        How many batches there are in all; 0 for none.
    seed : int
        Each epoch has a new order, drawn by a generator of its own with this seed.
    device : torch.device
        Where the batches are wanted. Streamed ones reach an accelerator through pinned memory,
        without waiting for them.
    workers : int
        Processes that read streamed examples ahead. 0: a thread of this process does, which
        is enough unless it takes long to make examples ready.

    Returns
    -------
    iterator of tuple of torch.Tensor
        Not to be changed in place: batches may share memory.

    Raises
    ------
    DataError
        If there are no examples.

    Notes
    -----
    Worker processes come from a fork server, as a fork of a process that has used torch's
    threads may hang. Its start takes as long as the import of torch, once per process.
    """
    if not len(examples):
        raise DataError("there are no examples to train on")
    batches_a_block = _BLOCK_BYTES // max(1, batch_size * examples.batch(0, 1).nbytes)
    orders = _orders(len(examples), batch_size, num_steps, seed)
    parts = _parts(orders, batch_size * max(1, batches_a_block))
    if isinstance(examples, Examples):
        blocks = _resident(examples, parts, device)
    else:
        blocks = _streamed(examples, parts, device, workers)
    return _batches(blocks, batch_size)


def _orders(count: int, batch_size: int, num_steps: int, seed: int) -> Iterator[Tensor]:
    """Yield the positions of the examples of each epoch; of the last, what is needed of it."""
    generator = torch.Generator().manual_seed(seed)
    while num_steps > 0:
        order = torch.randperm(count, generator=generator)[: num_steps * batch_size]
        num_steps -= -(-len(order) // batch_size)
        yield order


def _parts(orders: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Cut each epoch's order into blocks of ``size``."""
    for order in orders:
        yield from torch.split(order, size)


def _resident(
    examples: Examples, parts: Iterable[Tensor], device: torch.device
) -> Iterator[Examples]:
    resident = examples.to(device)
    for part in parts:
        yield resident.subset(part.to(device))


def _streamed(
    examples: StreamedExamples, parts: Iterable[Tensor], device: torch.device, workers: int
) -> Iterator[Examples]:
    pinned = device.type == "cuda"
    if workers:
        blocks = _read_by_processes(examples, parts, pinned, workers)
    else:
        blocks = _read_by_thread(examples, parts, pinned)
    for block in blocks:
        yield block.to(device, non_blocking=pinned)


def _batches(blocks: Iterable[Examples], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for block in blocks:
        for start in range(0, len(block), batch_size):
            batch = block.batch(start, start + batch_size)
            yield batch.inputs, batch.targets


def _read_by_thread(
    examples: StreamedExamples, parts: Iterable[Tensor], pinned: bool
) -> Iterator[Examples]:
    """Read blocks in a thread: gathering and converting do not hold Python's lock."""

    def read(part: Tensor) -> Examples:
        block = examples.subset(part)
        return block.pin_memory() if pinned else block

    reader = ThreadPoolExecutor(1, "fl-opt-loader")
    waiting: deque[Future[Examples]] = deque()
    try:
        for part in parts:
            waiting.append(reader.submit(read, part))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        reader.shutdown(cancel_futures=True)


def _read_by_processes(
    examples: StreamedExamples, parts: Iterable[Tensor], pinned: bool, workers: int
) -> Iterator[Examples]:
    """Read blocks in processes of their own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        _Blocks(examples),
        batch_size=None,
        sampler=parts,
        num_workers=workers,
        pin_memory=pinned,
        # Its own would be seeded from the global one, and dropout come out different.
        generator=torch.Generator(),
        multiprocessing_context=context,
    )
    for inputs, targets in loader:
        yield Examples(inputs, targets)


class _Blocks(Dataset[tuple[Tensor, Tensor]]):
    """Examples by the positions of a block, as torch's DataLoader asks for them."""

    def __init__(self, examples: StreamedExamples) -> None:
        self._examples = examples

    def __getitem__(self, part: Tensor) -> tuple[Tensor, Tensor]:
        block = self._examples.subset(part)
        return block.inputs, block.targets
