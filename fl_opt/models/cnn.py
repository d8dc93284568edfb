"""A small convolutional network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fl_opt.data import TaskInfo
from fl_opt.errors import ModelError
from fl_opt.models.fit import require_kind


def cnn(info: TaskInfo, channels: tuple[int, int] = (16, 32), hidden: int = 128) -> nn.Module:
    """Two 5x5 convolutions, each halving the image, and a hidden layer.

    215,370 parameters on grey images of 28x28 pixels and 10 classes, in the sizes given here.

    Parameters
    ----------
    info : TaskInfo
    channels : (int, int)
        Of the two convolutions.
    hidden : int
        Units of the hidden layer.

    Raises
    ------
    ModelError
        If the data is not images, or they are smaller than 4x4.
    """
    require_kind("cnn", info, "image")
    inputs, height, width = info.input_shape
    if min(height, width) < 4:
        raise ModelError(f"model 'cnn' needs images of at least 4x4, not {height}x{width}")
    first, second = channels
    return _ChannelsLast(
        nn.Conv2d(inputs, first, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),  # behind the pooling: the same result for a quarter of the work
        nn.Conv2d(first, second, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (width // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, info.num_classes),
    )


class _ChannelsLast(nn.Sequential):
    """Layers whose convolutions see channels last in memory, which is faster on CPUs."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply one layer after the other."""
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            inputs = layer(inputs)
        return inputs
