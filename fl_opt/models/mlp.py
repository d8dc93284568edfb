"""A multilayer perceptron."""

from __future__ import annotations

import math

from torch import nn

from fl_opt.data import TaskInfo
from fl_opt.models.fit import require_kind

_HIDDEN = 128


def mlp(info: TaskInfo) -> nn.Module:
    """Two hidden layers of 128: 26,122 parameters on 64 features and 10 classes.

    Images are taken as vectors of pixels.

    Raises
    ------
    ModelError
        If the data is text.
    """
    require_kind("mlp", info, "tabular", "image")
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(info.input_shape), _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, info.num_classes),
    )
