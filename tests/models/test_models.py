from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fl_opt.data import TaskInfo
from fl_opt.errors import ConfigError, ModelError
from fl_opt.models import MODELS, build_model

DIGITS = TaskInfo("tabular", (64,), 10)
FASHION = TaskInfo("image", (1, 28, 28), 10)
COLOUR = TaskInfo("image", (3, 32, 20), 7)
TEXT = TaskInfo("text", (80,), 69)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def inputs(info: TaskInfo, count: int = 3) -> torch.Tensor:
    if info.kind == "text":
        return torch.randint(info.num_classes, (count, *info.input_shape))
    return torch.rand(count, *info.input_shape)


@pytest.mark.parametrize(
    ("name", "info", "parameters"), [("mlp", DIGITS, 26_122), ("cnn", FASHION, 215_370)]
)
def test_number_of_parameters(name: str, info: TaskInfo, parameters: int) -> None:
    assert size(build_model(name, info, seed=1)) == parameters


@pytest.mark.parametrize(
    ("name", "info", "shape"),
    [
        ("mlp", DIGITS, (3, 10)),
        ("mlp", COLOUR, (3, 7)),
        ("cnn", FASHION, (3, 10)),
        ("cnn", COLOUR, (3, 7)),
        ("char_lm", TEXT, (3, 80, 69)),
    ],
)
def test_output_fits_the_task(name: str, info: TaskInfo, shape: tuple[int, ...]) -> None:
    assert build_model(name, info, seed=1)(inputs(info)).shape == shape


def test_char_lm_does_not_see_what_it_is_to_predict() -> None:
    model = build_model("char_lm", TEXT, seed=1)
    codes = inputs(TEXT)
    changed = codes.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 69
    before, after = model(codes), model(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


@pytest.mark.parametrize(("name", "info"), [("mlp", DIGITS), ("cnn", FASHION)])
def test_seed_decides_the_weights_and_nothing_else_changes(name: str, info: TaskInfo) -> None:
    state = torch.get_rng_state()
    first = build_model(name, info, seed=5)
    torch.rand(3)
    again = build_model(name, info, seed=5)
    other = build_model(name, info, seed=6)
    torch.set_rng_state(state)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    build_model("mlp", DIGITS, seed=5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "info", "reason"),
    [
        ("mlp", TEXT, "model 'mlp' is for tabular or image data, not text"),
        ("cnn", DIGITS, "model 'cnn' is for image data, not tabular"),
        ("char_lm", FASHION, "model 'char_lm' is for text data, not image"),
        ("cnn", TaskInfo("image", (1, 3, 9), 2), "at least 4x4, not 3x9"),
    ],
)
def test_a_model_must_suit_the_data(name: str, info: TaskInfo, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        build_model(name, info, seed=1)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"use mlp, cnn, char_lm or .*; did you mean 'char_lm'"
    ):
        build_model("charlm", TEXT, seed=1)
    assert list(MODELS) == ["mlp", "cnn", "char_lm"]


OWN_MODELS = """
from torch import nn

def linear(info):
    return nn.Linear(info.input_shape[0], info.num_classes)

def number(info):
    return 7

def broken(info):
    raise RuntimeError("no weights")

constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_models_for_test.py").write_text(OWN_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models_for_test", raising=False)
    return "import:own_models_for_test"


def test_a_factory_of_the_users_own(own: str) -> None:
    model = build_model(f"{own}:linear", DIGITS, seed=1)
    assert isinstance(model, nn.Linear)
    assert size(model) == 650
    again = build_model(f"{own}:linear", DIGITS, seed=1)
    assert torch.equal(model.weight, next(again.parameters()))


@pytest.mark.parametrize(
    ("factory", "error", "reason"),
    [
        (":number", ModelError, "is a int, not a torch.nn.Module"),
        (":broken", ModelError, "cannot be built for .*: no weights"),
        (":constant", ConfigError, "has no function 'constant'"),
        (":absent", ConfigError, "has no function 'absent'"),
        ("", ConfigError, "expected import:package.module:factory"),
        (":", ConfigError, "expected import:package.module:factory"),
        ("_absent:linear", ConfigError, "cannot import 'own_models_for_test_absent'"),
    ],
)
def test_a_factory_that_cannot_be_used(
    own: str, factory: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        build_model(own + factory, DIGITS, seed=1)
