from __future__ import annotations

import torch

from fl_opt.data import Examples


def test_subset_keeps_rows_together_and_shares_nothing() -> None:
    examples = Examples(torch.arange(6.0).reshape(3, 2), torch.tensor([7, 8, 9]))
    part = examples.subset(torch.tensor([2, 0]))
    assert part.inputs.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert part.targets.tolist() == [9, 7]
    part.inputs.zero_()
    assert examples.inputs[2].tolist() == [4.0, 5.0]
