"""The reference workload's data: small, hard enough, and exactly reproducible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_opt.data.examples import TaskInfo
from fl_opt.data.source import Source, classified
from fl_opt.seeds import derive_seed

NUM_TRAIN = 2000
NUM_TEST = 500
NUM_FEATURES = 64
NUM_CLASSES = 10
SHIFT = 2.0


def synthetic(seed: int) -> Source:
    """Draw the data: 2,000 examples to train (10 clients of 200) and 500 to test.

    Classes are uniform; 64 features are standard normal, and feature number y of an example
    of class y is raised by 2. No model can be right on more than about 0.7 of it.

    Parameters
    ----------
    seed : int
        The same seed gives the same data on every machine.
    """
    rng = np.random.default_rng(derive_seed(seed, "synthetic"))
    info = TaskInfo("tabular", (NUM_FEATURES,), NUM_CLASSES)
    return classified(info, _draw(rng, NUM_TRAIN), _draw(rng, NUM_TEST))


def _draw(
    rng: np.random.Generator, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    classes = rng.integers(NUM_CLASSES, size=count)
    inputs = rng.standard_normal((count, NUM_FEATURES), dtype=np.float32)
    inputs[np.arange(count), classes] += SHIFT
    return inputs, classes
