"""Models by name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from fl_opt.data import TaskInfo
from fl_opt.errors import ConfigError, FlOptError, ModelError
from fl_opt.models.char_lm import char_lm
from fl_opt.models.cnn import cnn
from fl_opt.models.mlp import mlp

Factory: TypeAlias = Callable[[TaskInfo], nn.Module]

MODELS: dict[str, Factory] = {"mlp": mlp, "cnn": cnn, "char_lm": char_lm}

_IMPORT_PREFIX = "import:"


def build_model(name: str, info: TaskInfo, seed: int) -> nn.Module:
    """Build a model; the same name, data and seed give the same weights.

    Parameters
    ----------
    name : str
        A name in :data:`MODELS`, or ``import:package.module:factory`` for a function of the
        user's own that takes a :class:`~fl_opt.data.TaskInfo` and returns a module. For text
        a model gives logits of shape ``(n, window, num_classes)``, else ``(n, num_classes)``.
    info : TaskInfo
    seed : int
        Of the initial weights, in [0, 2**63). Torch's global random state is left as it was.

    Returns
    -------
    torch.nn.Module
        On the CPU.

    Raises
    ------
    ConfigError
        If there is no such model.
    ModelError
        If it does not suit the data, or the user's factory fails.
    """
    factory = _find(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model = factory(info)
        except FlOptError:
            raise
        except Exception as error:
            raise ModelError(f"model {name!r} cannot be built for {info}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name!r} is a {type(model).__name__}, not a torch.nn.Module")
    return model


def _find(name: str) -> Factory:
    if name.startswith(_IMPORT_PREFIX):
        return _import(name)
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"unknown model {name!r}: use {', '.join(MODELS)} or "
            f"import:package.module:factory{hint}"
        )
    return MODELS[name]


def _import(name: str) -> Factory:
    module_name, _, attribute = name.removeprefix(_IMPORT_PREFIX).partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"model {name!r}: expected import:package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError) as error:
        raise ConfigError(f"model {name!r}: cannot import {module_name!r}: {error}") from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(f"model {name!r}: {module_name!r} has no function {attribute!r}")
    found: Factory = factory
    return found
