"""Between a torch model and named numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_opt.errors import ModelError


def get_arrays(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Copy a model's parameters and buffers, in the order of its ``state_dict``.

    Returns
    -------
    dict of str to ndarray
        Contiguous arrays that share no memory with the model; bfloat16, which numpy does
        not have, becomes float32.

    Raises
    ------
    ModelError
        If the state holds something other than tensors.
    """
    return {name: _to_numpy(tensor) for name, tensor in _state(model).items()}


def set_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Copy named arrays into a model, in place; nothing is copied if one does not fit.

    Parameters
    ----------
    model : torch.nn.Module
    arrays : mapping of str to ndarray
        Names and shapes as :func:`get_arrays` gives them, in any order; they may be
        read-only. Floating-point values are rounded to the model's precision.

    Raises
    ------
    ModelError
        If a name is missing or unknown, or a shape or kind of dtype differs.
    """
    state = _state(model)
    _check(state, arrays)
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.tensor(arrays[name]))


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"model state {name!r} is a {type(value).__name__}, not a tensor")
    return state


def _to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return np.array(tensor.cpu().numpy(), order="C")


def _check(state: dict[str, torch.Tensor], arrays: Mapping[str, NDArray[Any]]) -> None:
    for name in state.keys() - arrays.keys():
        raise ModelError(f"array {name!r} of the model is missing")
    for name, array in arrays.items():
        if name not in state:
            raise ModelError(f"array {name!r} is not one of the model's")
        tensor = state[name]
        if array.shape != tuple(tensor.shape):
            raise ModelError(
                f"array {name!r} has shape {array.shape}, the model needs {tuple(tensor.shape)}"
            )
        if np.issubdtype(array.dtype, np.floating) != tensor.is_floating_point():
            raise ModelError(f"array {name!r} is {array.dtype}, the model needs {tensor.dtype}")
