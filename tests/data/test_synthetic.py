from __future__ import annotations

import pytest
import torch

from fl_opt.data.synthetic import synthetic


def test_data_is_as_the_reference_workload_describes_it() -> None:
    source = synthetic(seed=1)
    assert source.train.inputs.shape == (2000, 64)
    assert source.test.inputs.shape == (500, 64)
    assert source.train.inputs.dtype == torch.float32
    raised = source.train.inputs.gather(1, source.train.targets[:, None])
    assert raised.mean().item() == pytest.approx(2.0, abs=0.1)
    noise = source.train.inputs.scatter(1, source.train.targets[:, None], 0.0)[:, 10:]
    assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
    assert noise.std().item() == pytest.approx(1.0, abs=0.02)
    counts = torch.bincount(source.train.targets, minlength=10)
    assert counts.min() > 150
    assert counts.max() < 250


def test_seed_decides_the_data() -> None:
    first, again, other = synthetic(1), synthetic(1), synthetic(2)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.targets, again.test.targets)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert not torch.equal(first.train.inputs[:500], first.test.inputs)
