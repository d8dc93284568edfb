from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import Examples
from fl_opt.errors import ConfigError
from fl_opt.training import evaluate, train
from fl_opt.training.plan import Plan
from tests.training.tasks import linear_model, separable


def settings(**changes: Any) -> TrainSettings:
    values = {"local_epochs": 2, "batch_size": 8, "momentum": 0.0, "clip_norm": 0.0}
    return TrainSettings(**{**values, **changes})


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_learns() -> None:
    model, examples = linear_model(), separable(400)
    before = evaluate(model, examples)
    result = train(model, examples, settings(local_epochs=20, learning_rate=0.5), seed=1)
    after = evaluate(model, separable(400, seed=9))
    assert before.loss == pytest.approx(math.log(3))
    assert after.loss < result.loss < before.loss
    assert after.accuracy > 0.95


def test_counts_with_a_smaller_last_batch() -> None:
    result = train(linear_model(), separable(21), settings(local_epochs=3), seed=1)
    assert (result.num_examples, result.num_samples, result.num_steps) == (21, 63, 9)
    assert result.seconds > 0


@pytest.mark.parametrize(("steps", "samples"), [(1, 8), (3, 21), (7, 21 + 21 + 8)])
def test_steps_instead_of_epochs(steps: int, samples: int) -> None:
    result = train(linear_model(), separable(21), settings(local_steps=steps), seed=1)
    assert (result.num_steps, result.num_samples) == (steps, samples)


def test_an_epoch_uses_each_example_once() -> None:
    seen: list[torch.Tensor] = []

    class Spy(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(inputs.clone())
            return super().forward(inputs)

    examples = separable(21)
    train(Spy(8, 3), examples, settings(local_epochs=2), seed=1)
    epochs = torch.cat(seen[:3]), torch.cat(seen[3:])
    for epoch in epochs:
        assert torch.equal(epoch.sort(dim=0).values, examples.inputs.sort(dim=0).values)
    assert not torch.equal(*epochs)
    assert not torch.equal(epochs[0], examples.inputs)


def test_one_full_batch_step_is_gradient_descent_and_loss_is_the_mean() -> None:
    examples = separable(20)
    model, expected = linear_model(), linear_model()
    loss = nn.functional.cross_entropy(expected(examples.inputs), examples.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in expected.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad, alpha=0.1)
    result = train(
        model, examples, settings(local_steps=1, batch_size=20, learning_rate=0.1), seed=1
    )
    torch.testing.assert_close(weights(model), weights(expected))
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_are_torchs_own(optimizer: str) -> None:
    examples = separable(20)
    model, expected = linear_model(), linear_model()
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": 0.9} if optimizer == "sgd" else {}
    reference: Any = kinds[optimizer](expected.parameters(), lr=0.01, weight_decay=0.1, **extra)
    for _ in range(3):
        reference.zero_grad()
        loss = nn.functional.cross_entropy(expected(examples.inputs), examples.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        reference.step()
    chosen = settings(
        optimizer=optimizer, local_steps=3, batch_size=20, learning_rate=0.01,
        momentum=0.9, weight_decay=0.1,
    )  # fmt: skip
    train(model, examples, chosen, seed=1)
    torch.testing.assert_close(weights(model), weights(expected))


def test_clipping_bounds_the_step() -> None:
    examples = Examples(separable(20).inputs * 100, separable(20).targets)
    steps = {}
    for norm in (0.0, 0.5):
        model = linear_model()
        chosen = settings(local_steps=1, batch_size=20, learning_rate=1.0, clip_norm=norm)
        train(model, examples, chosen, seed=1)
        steps[norm] = weights(model)
    assert steps[0.0].norm() > 10
    assert steps[0.5].norm().item() == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(steps[0.5] / 0.5, steps[0.0] / steps[0.0].norm())


def test_proximal_term_is_that_of_fedprox() -> None:
    examples, mu, rate = separable(20), 0.7, 0.1
    model, expected = linear_model(), linear_model()
    anchor = [p.detach().clone() for p in expected.parameters()]
    for _ in range(4):
        expected.zero_grad()
        loss = nn.functional.cross_entropy(expected(examples.inputs), examples.targets)
        pairs = zip(expected.parameters(), anchor, strict=True)
        loss = loss + mu / 2 * sum((p - a).square().sum() for p, a in pairs)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in expected.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=rate)
    chosen = settings(local_steps=4, batch_size=20, learning_rate=rate, proximal_mu=mu)
    train(model, examples, chosen, seed=1)
    torch.testing.assert_close(weights(model), weights(expected))


def test_proximal_term_can_pull_elsewhere() -> None:
    model = linear_model()
    anchor = torch.full((sum(p.numel() for p in model.parameters()),), 3.0)
    chosen = settings(local_steps=400, learning_rate=0.01, proximal_mu=50.0)
    train(model, separable(20), chosen, seed=1, reference=anchor)
    torch.testing.assert_close(weights(model), torch.full((27,), 3.0), atol=0.05, rtol=0)


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = linear_model()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(nn.functional.dropout(inputs, 0.5, self.training))
        return logits


def test_seed_decides_batches_and_dropout_and_nothing_else_changes() -> None:
    examples = separable(50)
    state = torch.get_rng_state()
    trained = []
    for seed in (1, 1, 2):
        model = Dropped()
        train(model, examples, settings(), seed=seed)
        trained.append(weights(model))
        torch.set_rng_state(state)
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])

    train(linear_model(), examples, settings(), seed=1)
    torch.set_rng_state(state)
    train(Dropped(), examples, settings(), seed=1)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    Dropped()  # initialising its layer is all that draws from the global state
    assert torch.equal(after, torch.get_rng_state())


def test_divergence_is_not_hidden() -> None:
    examples = Examples(separable(20).inputs * 1e30, separable(20).targets)
    result = train(linear_model(), examples, settings(learning_rate=1e10), seed=1)
    assert not math.isfinite(result.loss)


def test_frozen_parameters_stay() -> None:
    model = nn.Sequential(nn.Linear(8, 8), linear_model())
    frozen = copy.deepcopy(model[0])
    model[0].requires_grad_(False)
    train(model, separable(20), settings(proximal_mu=0.1), seed=1)
    torch.testing.assert_close(weights(model[0]), weights(frozen), atol=0, rtol=0)
    assert weights(model[1]).abs().sum() > 0


def test_a_prediction_at_each_position() -> None:
    class Letters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Embedding(5, 5)

        def forward(self, codes: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.scores(codes)
            return logits

    codes = torch.arange(60).reshape(6, 10) % 5
    examples = Examples(codes, (codes + 1) % 5)
    model = Letters()
    train(model, examples, settings(local_epochs=100, learning_rate=1.0), seed=1)
    result = evaluate(model, examples)
    assert result.accuracy == 1.0
    assert result.num_examples == 6


@pytest.mark.parametrize("micro", [1, 5, 8, 19])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])  # with and without autograd
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    micro: int, activation: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(8, 16), activation(), nn.Linear(16, 3))
    chosen = settings(local_steps=1, batch_size=20, learning_rate=1.0)
    steps = []
    for size in (20, micro):
        model = copy.deepcopy(start)
        result = train(model, separable(20), chosen, seed=1, plan=Plan(20, size))
        assert (result.num_steps, result.num_samples) == (1, 20)
        steps.append(weights(start) - weights(model))
    assert (steps[0] - steps[1]).norm() <= 1e-6 * steps[0].norm()


def test_masked_parameters_stay() -> None:
    model, before = linear_model(), weights(linear_model())
    mask = (torch.arange(len(before)) % 2).float()
    train(model, separable(40), settings(clip_norm=1.0), seed=1, mask=mask)
    moved = weights(model) != before
    assert not moved[::2].any()
    assert moved[1::2].all()


def test_what_is_left_open_has_to_be_planned() -> None:
    with pytest.raises(ConfigError, match="'auto': it has to be found first"):
        train(linear_model(), separable(20), settings(batch_size="auto"), seed=1)
    result = train(
        linear_model(), separable(20), settings(batch_size="auto"), seed=1, plan=Plan(10, 10)
    )
    assert result.num_steps == 4


def test_images_can_have_their_channels_last() -> None:
    seen: list[bool] = []

    class Spy(nn.Conv2d):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(inputs.is_contiguous(memory_format=torch.channels_last))
            return super().forward(inputs)

    torch.manual_seed(0)
    examples = Examples(torch.randn(12, 3, 4, 4), torch.randint(0, 2, (12,)))
    start = nn.Sequential(Spy(3, 2, 4), nn.Flatten())
    ends = []
    for last in (False, True):
        model = copy.deepcopy(start)
        train(model, examples, settings(channels_last=last), seed=1)
        ends.append(weights(model))
    assert seen == [False] * 4 + [True] * 4
    torch.testing.assert_close(*ends)
