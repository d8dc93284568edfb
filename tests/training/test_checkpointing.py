"""Checkpointed modules: the same results for less memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fl_opt.errors import ConfigError
from fl_opt.profiling.allocations import allocation_timeline
from fl_opt.training.checkpointing import checkpointed
from fl_opt.training.segments import segment_choices

CPU = torch.device("cpu")


class Block(nn.Module):
    """Wide inside, with dropout and statistics that must be counted once."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.BatchNorm1d(4 * width),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(4 * width, width),
        )
        self.calls = 0

    def forward(self, inputs: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        self.calls += 1
        result: torch.Tensor = inputs + scale * self.inner(inputs)
        return result


class Stacked(nn.Module):
    """Blocks in a ModuleList, which is never called, and one called with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.last = Block()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            inputs = block(inputs)
        result: torch.Tensor = self.norm(self.last(inputs, scale=0.5))
        return result


class Normed(nn.Module):
    """A layer whose weights depend on a state that each forward pass moves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)) for _ in range(3))
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layers(inputs)
        return outputs


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build()


def one_step(model: nn.Module, patterns: str) -> dict[str, torch.Tensor]:
    """Return the outputs, and gradients and state after one step of gradient descent."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        inputs = torch.randn(16, 8)
        with checkpointed(model, patterns):
            outputs = model(inputs)
            outputs.square().mean().backward()
        drawn = torch.rand(3)
    gradients = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradients[f"gradient of {name}"] = parameter.grad
            parameter.sub_(parameter.grad, alpha=0.1)
    return {"outputs": outputs.detach(), "drawn": drawn, **gradients, **model.state_dict()}


SEQUENCE: Callable[[], nn.Module] = lambda: nn.Sequential(*(Block() for _ in range(5)))  # noqa: E731


@pytest.mark.parametrize(
    ("build", "patterns"),
    [
        (SEQUENCE, "*"),
        (SEQUENCE, "1, 3"),
        (SEQUENCE, ":2"),
        (SEQUENCE, ":5"),
        (SEQUENCE, "2.inner"),
        (SEQUENCE, "*.inner:2"),
        (SEQUENCE, "0.*, 4"),
        (Stacked, "blocks"),
        (Stacked, "blocks.[01], last"),
        (Stacked, "norm"),
        (Normed, "layers:2"),
        (Normed, "*"),
    ],
)
def test_a_step_is_the_same(build: Callable[[], nn.Module], patterns: str) -> None:
    expected = one_step(seeded(build), "")
    found = one_step(seeded(build), patterns)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


def test_modules_run_again_but_not_those_inside_them_twice() -> None:
    model = seeded(Stacked)
    one_step(model, "blocks, *.inner, *.inner.0")
    calls = [block.calls for block in model.modules() if isinstance(block, Block)]
    # The last block itself is not named: what is inside it is.
    assert calls == [2, 2, 2, 2, 1]


def test_the_last_run_is_not_computed_again() -> None:
    model = seeded(SEQUENCE)
    one_step(model, ":2")
    calls = [block.calls for block in model.modules() if isinstance(block, Block)]
    assert calls == [2, 2, 1, 1, 1]


def test_without_gradients_nothing_is_kept_or_run_again() -> None:
    model = seeded(Stacked).eval()
    with checkpointed(model, "*"), torch.no_grad():
        model(torch.randn(4, 8))
    assert {b.calls for b in model.modules() if isinstance(b, Block)} == {1}


def test_the_model_is_put_back() -> None:
    model = seeded(Stacked)

    def own(inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("inside")

    setattr(model.norm, "forward", own)  # noqa: B010 -- one object's own
    with pytest.raises(RuntimeError, match="inside"), checkpointed(model, "blocks, norm"):
        model(torch.randn(4, 8))
    assert vars(model.norm)["forward"] is own
    changed = {name for name, module in model.named_modules() if "forward" in vars(module)}
    assert changed == {"norm"}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("blocks.9", r"'blocks.9' matches no module; there are blocks, blocks.0, .* more"),
        ("last, nothing*", r"'nothing\*' matches no module"),
        ("last:2", "'last:2' divides 'last', a Block; only a torch.nn.Sequential can be"),
        ("last.inner:6", "into '6' runs of layers; it can be divided into 2 to 5"),
        ("last.inner:1", "into '1' runs"),
        ("last.inner:x", "into 'x' runs"),
        (":3", "':3' divides 'the model', a Stacked"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_changes(
    patterns: str, message: str
) -> None:
    model = seeded(Stacked)
    with (
        pytest.raises(ConfigError, match=f"train.checkpoint-modules: .*{message}"),
        checkpointed(model, f"blocks, {patterns}"),
    ):
        pass
    assert not any("forward" in vars(module) for module in model.modules())


def deep(kind: str) -> nn.Module:
    if kind == "layers":
        layers: list[nn.Module] = []
        for _ in range(36):
            layers += [nn.Linear(64, 64), nn.ReLU()]
        return nn.Sequential(*layers)
    return nn.Sequential(*(Block(64) for _ in range(12)))


@pytest.mark.parametrize("kind", ["layers", "blocks"])
def test_peak_memory_of_a_deep_model_is_at_least_halved(kind: str) -> None:
    model = deep(kind)
    inputs = torch.randn(1024, 64)

    def step() -> None:
        with checkpointed(model, patterns):
            model(inputs).sum().backward()
        model.zero_grad()

    def kept() -> int:
        """Bytes that autograd keeps for the backward pass, each storage once."""
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            checkpointed(model, patterns),
        ):
            outputs = model(inputs)
            total = sum(sizes.values())
            outputs.sum().backward()
        return total

    peaks: dict[str, tuple[int, int]] = {}
    for patterns in ["", *segment_choices(model)]:
        step()
        peaks[patterns] = int(allocation_timeline(step, CPU).max()), kept()
    best = min(segment_choices(model), key=lambda choice: peaks[choice])
    assert peaks[best][0] <= peaks[""][0] / 2
    assert peaks[best][1] <= peaks[""][1] / 2


def test_choices_are_of_the_container_with_the_most_parts_and_of_the_model() -> None:
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(16)))
    named: Any = nn.ModuleDict({"head": nn.Linear(4, 4), "body": layers})
    body = ", ".join(f"body.{i}" for i in range(16))
    assert set(segment_choices(named)) == {"body:4", "body:6", body, "head, body"}
    assert set(segment_choices(layers)) == {":4", ":6", ", ".join(map(str, range(16)))}
    assert segment_choices(nn.Linear(4, 4)) == []


def test_a_sequence_with_a_forward_of_its_own_is_not_divided() -> None:
    class Own(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs

    model = Own(*(nn.Linear(4, 4) for _ in range(9)))
    assert segment_choices(model) == [", ".join(map(str, range(9)))]


@pytest.mark.parametrize("kind", ["layers", "blocks"])
def test_every_choice_can_be_followed(kind: str) -> None:
    model = deep(kind)
    for choice in segment_choices(model):
        with checkpointed(model, choice):
            assert math.isfinite(model(torch.randn(4, 64)).sum().item())
