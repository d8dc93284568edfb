from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_opt.profiling.allocations import allocation_timeline
from fl_opt.profiling.phases import phase_memory

CPU = torch.device("cpu")


def test_every_allocation_and_release_in_order() -> None:
    kept = []

    def work() -> None:
        first = torch.empty(1000)
        kept.append(torch.empty(500, dtype=torch.uint8))
        del first

    assert allocation_timeline(work, CPU).tolist() == [0, 4000, 4500, 500]


def test_temporaries_of_the_backward_pass_are_in_it() -> None:
    layer = nn.Linear(100, 100)
    inputs = torch.randn(1000, 100)
    size = 4 * 1000 * 100

    def work() -> None:
        layer(layer(inputs)).square().sum().backward()

    peak = int(allocation_timeline(work, CPU).max())
    # Two activations, the square, and the gradients of both: four at once at least.
    assert 4 * size <= peak <= 6 * size


def test_what_was_there_before_does_not_count() -> None:
    before = torch.ones(100_000)
    timeline = allocation_timeline(lambda: before.add_(1), CPU)
    assert timeline.max() < 1000


def test_a_device_that_cannot_be_followed() -> None:
    with pytest.raises(KeyError, match="mps"):
        allocation_timeline(lambda: None, torch.device("mps"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_has_a_timeline_and_statistics_of_its_own() -> None:
    device = torch.device("cuda")
    timeline = allocation_timeline(lambda: torch.empty(1 << 20, device=device), device)
    assert timeline.max() == 4 << 20
    with phase_memory("cuda", device) as phase:
        before = torch.cuda.memory_allocated(device)
        torch.empty(1 << 20, device=device)
    assert phase.allocated_bytes - before == 4 << 20
    assert phase.reserved_bytes >= phase.allocated_bytes
