"""Narrow models: a chain of layers with fewer hidden units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from fl_opt.errors import ModelError

Shapes = tuple[tuple[int, ...], ...]


def shapes_of(model: nn.Module) -> Shapes:
    """Return the shapes of all that is in a model's ``state_dict``, in its order."""
    return tuple(tuple(tensor.shape) for tensor in model.state_dict().values())


def is_narrower(shapes: Shapes, whole: Shapes) -> bool:
    """Whether shapes differ from a model's as those of a narrower one do: smaller, not more."""
    alike = len(shapes) == len(whole) and all(
        len(own) == len(other) and all(m <= n for m, n in zip(own, other, strict=True))
        for own, other in zip(shapes, whole, strict=True)
    )
    return alike and shapes != whole


@lru_cache(maxsize=4)
def narrowed(model: nn.Module, shapes: Shapes) -> nn.Module:
    """Return a model of the same layers with fewer hidden units.

    It is trained on a part of the model's weights, which go on to work among all of them: the
    outputs of a layer that keeps the share r of its units are multiplied by 1/r, so that the
    next one is fed as it is in the whole model. Diao et al. 2021 ("HeteroFL", arXiv 2010.01264)
    call it a scaler; dropout does the same.

    Parameters
    ----------
    model : torch.nn.Module
        A ``Sequential`` of linear layers, convolutions and layers without parameters, such as
        ``mlp`` and ``cnn``.
    shapes : tuple of shapes
        Of the narrow model's arrays, in the order of its ``state_dict``.

    Returns
    -------
    torch.nn.Module
        On the device of ``model``, with weights of its own that are to be set, in training mode
        if that is. The same module for the same arguments.

    Raises
    ------
    ModelError
        If the model is of another kind, or the shapes are not those of a narrower one.
    """
    if not isinstance(model, nn.Sequential):
        raise ModelError(
            f"{type(model).__name__} cannot be made narrower: only chains of layers, such as "
            "mlp and cnn, can"
        )
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and not used
        narrow = type(model)(*_layers(model, shapes))
    if shapes_of(narrow) != shapes:
        raise ModelError(f"arrays of shapes {shapes} are no narrower {type(model).__name__}")
    device = next(model.parameters()).device
    return narrow.to(device).train(model.training)


class _Scaled(nn.Module):
    """Multiplies its inputs by a constant.

    Parameters
    ----------
    factor : float
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        return inputs * self.factor


def _layers(model: nn.Sequential, shapes: Sequence[tuple[int, ...]]) -> Iterator[nn.Module]:
    left = iter(shapes)
    for name, layer in model.named_children():
        arrays = layer.state_dict()
        if not arrays:
            yield layer
            continue
        own = [next(left, ()) for _ in arrays]
        if list(arrays) not in (["weight"], ["weight", "bias"]):
            raise ModelError(f"layer {name!r}, a {type(layer).__name__}, cannot be narrowed")
        narrow = _narrow(name, layer, own[0])
        yield narrow
        share = own[0][0] / arrays["weight"].shape[0]
        if share != 1.0:
            yield _Scaled(1.0 / share)


def _narrow(name: str, layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Return a layer of the same kind whose weights have a shape."""
    if isinstance(layer, nn.Linear) and len(shape) == 2:
        return nn.Linear(shape[1], shape[0], bias=layer.bias is not None)
    if isinstance(layer, nn.Conv2d) and len(shape) == 4 and layer.groups == 1:
        return nn.Conv2d(
            shape[1],
            shape[0],
            kernel_size=layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
        )
    raise ModelError(
        f"layer {name!r}, a {type(layer).__name__}, cannot be narrowed to weights of shape "
        f"{shape}"
    )
