"""What is pruned stays zero through local training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import Examples
from fl_opt.training import train
from fl_opt.training.pruning import pruned_mask


def pruned_model() -> tuple[nn.Module, nn.Linear, nn.Linear]:
    first, second = nn.Linear(6, 8), nn.Linear(8, 3)
    model = nn.Sequential(first, nn.ReLU(), second)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if parameter.ndim > 1:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.3)
        first.bias[2] = 0.0  # a bias is not pruned, whatever it is
    return model, first, second


def test_the_mask_is_zero_where_weights_are() -> None:
    model, first, second = pruned_model()
    expected = torch.cat(
        [
            *((first.weight != 0).flatten().float(), torch.ones(8)),
            *((second.weight != 0).flatten().float(), torch.ones(3)),
        ]
    )
    assert torch.equal(pruned_mask(model), expected)
    second.weight.requires_grad = False
    assert pruned_mask(model).shape == (6 * 8 + 8 + 3,)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_leaves_them_at_zero_and_moves_the_rest(optimizer: str) -> None:
    model, _, _ = pruned_model()
    mask = pruned_mask(model)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    generator = torch.Generator().manual_seed(1)
    examples = Examples(
        torch.randn(64, 6, generator=generator), torch.randint(3, (64,), generator=generator)
    )
    settings = TrainSettings(
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=0.05,
        weight_decay=0.01,
        momentum=0.9,
        proximal_mu=0.1,
        local_epochs=3,
    )
    train(model, examples, settings, seed=1, mask=mask)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(after[mask == 0], torch.zeros(int((mask == 0).sum())))
    assert (after != before)[mask == 1].float().mean() > 0.9
