from __future__ import annotations

import numpy as np
import torch

from fl_opt.data import TaskInfo
from fl_opt.data.digits import digits


def test_all_digits_are_there_scaled_and_split_alike() -> None:
    source = digits()
    assert source.info == TaskInfo("tabular", (64,), 10)
    assert (len(source.train), len(source.test)) == (1437, 360)
    assert source.train.inputs.dtype == torch.float32
    assert source.train.inputs.min().item() == 0.0
    assert source.train.inputs.max().item() == 1.0
    train, test = (torch.bincount(part.targets) for part in (source.train, source.test))
    assert torch.all((train / 1437 - test / 360).abs() < 0.01)


def test_the_split_is_the_same_each_time_and_has_no_example_twice() -> None:
    first, second = digits(), digits()
    assert torch.equal(first.test.inputs, second.test.inputs)
    inputs = torch.cat([first.train.inputs, first.test.inputs]).numpy()
    assert len(np.unique(inputs, axis=0)) == len(inputs)
