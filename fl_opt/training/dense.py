"""Small fully connected networks without autograd.

A step of a network of some ten thousand weights takes torch several times as long as its
matrix products: the rest goes into building and walking a graph of operations. Here the
backward pass of such a network is written out, in numpy, on the memory of the torch model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_MOST_WEIGHTS: Final = 1 << 17
"""Of a larger network the products are what takes the time, and torch's are as good."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class _Layer:
    """A linear layer: weights of shape ``(outputs, inputs)``, and where gradients go."""

    weight: Matrix
    weight_gradient: Matrix
    bias: Matrix | None
    bias_gradient: Matrix | None


class DenseNetwork:
    """The gradient of linear layers with ReLU in between, and cross entropy.

    Sums of floats are in another order than autograd's: results agree to rounding.

    Parameters
    ----------
    layers : sequence of torch.nn.Linear
        Their parameters have gradients, to which is added.
    """

    def __init__(self, layers: list[nn.Linear]) -> None:
        self._layers = [_as_layer(layer) for layer in layers]

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor, share: float) -> float:
        """Add a share of the gradient of the mean loss; return the loss."""
        x = inputs.numpy().reshape(len(inputs), -1)
        hidden = [x]  # what goes into each layer
        for layer in self._layers:
            x = hidden[-1] @ layer.weight.T
            if layer.bias is not None:
                x += layer.bias
            if layer is not self._layers[-1]:
                np.maximum(x, 0.0, out=x)
            hidden.append(x)
        loss, delta = _cross_entropy(hidden.pop(), targets.numpy(), share)
        for layer in reversed(self._layers):
            below = hidden.pop()
            _add_to(layer.weight_gradient, delta.T @ below)
            if layer.bias_gradient is not None:
                _add_to(layer.bias_gradient, np.add.reduce(delta))
            if hidden:
                delta = delta @ layer.weight
                delta *= below > 0.0
        return loss


def as_dense_network(model: nn.Module) -> DenseNetwork | None:
    """Return a small fully connected model as a :class:`DenseNetwork`; None for all others.

    Parameters
    ----------
    model : torch.nn.Module
        A ``Sequential`` of ``Flatten``, if it begins with one, and of ``Linear`` layers with a
        ``ReLU`` between each two, all float32, trained, on the CPU, without hooks. The
        gradients of its parameters stay the same tensors.
    """
    layers = list(_linear_layers(model))
    parameters = list(model.parameters())
    if not layers or sum(p.numel() for p in parameters) > _MOST_WEIGHTS:
        return None
    for parameter in parameters:
        plain = parameter.dtype is torch.float32 and parameter.device.type == "cpu"
        if not (plain and parameter.grad is not None and parameter.is_contiguous()):
            return None
    return DenseNetwork(layers)


def _linear_layers(model: nn.Module) -> Iterator[nn.Linear]:
    """Yield the layers of a model of the right form, nothing for any other."""
    if type(model) is not nn.Sequential or any(map(_is_hooked, model.modules())):
        return
    modules = list(model)
    if modules and type(modules[0]) is nn.Flatten and modules[0].start_dim == 1:
        modules = modules[1:] if modules[0].end_dim == -1 else []
    if len(modules) % 2 == 0:
        return
    for place, module in enumerate(modules):
        if type(module) is not (nn.ReLU if place % 2 else nn.Linear):
            return
    yield from (module for module in modules if isinstance(module, nn.Linear))


def _is_hooked(module: nn.Module) -> bool:
    """Whether something else happens when a module is called."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in module.__dict__


def _as_layer(layer: nn.Linear) -> _Layer:
    weight, weight_gradient = _shared(layer.weight)
    bias, bias_gradient = _shared(layer.bias)
    if weight is None or weight_gradient is None:
        raise ValueError("a layer without gradient")
    return _Layer(weight, weight_gradient, bias, bias_gradient)


def _shared(parameter: torch.Tensor | None) -> tuple[Matrix | None, Matrix | None]:
    """Return a parameter and its gradient as arrays in the same memory."""
    if parameter is None or parameter.grad is None:
        return None, None
    return parameter.detach().numpy(), parameter.grad.numpy()


def _add_to(total: Matrix, part: Matrix) -> None:
    np.add(total, part, out=total)


def _cross_entropy(
    logits: Matrix, targets: NDArray[np.int64], share: float
) -> tuple[float, Matrix]:
    """Return the mean loss in nats, and the gradient of a share of it; logits are used up."""
    # The ufuncs' own methods: those of arrays take twice as long on so few numbers.
    count = len(targets)
    rows = np.arange(count)
    logits -= np.maximum.reduce(logits, axis=1, keepdims=True)
    wanted = logits[rows, targets]
    np.exp(logits, out=logits)
    sums = np.add.reduce(logits, axis=1, keepdims=True)
    loss = float(np.add.reduce(np.log(sums[:, 0]) - wanted)) / count
    logits /= sums
    logits[rows, targets] -= np.float32(1.0)
    logits *= np.float32(share / count)
    return loss, logits
