"""The 1,797 handwritten 8x8 digits inside scikit-learn: real data without a download."""

from __future__ import annotations

import numpy as np

from fl_opt.data.examples import TaskInfo
from fl_opt.data.source import Source, classified

_TEST_FRACTION = 0.2
_TEST_SEED = 0  # one test set for all runs, so that their results can be compared


def digits() -> Source:
    """Load the digits: 64 pixels in [0, 1] as a vector, 1,437 to train and 360 to test.

    Returns
    -------
    Source
        Every class has the same share of both parts.
    """
    # scikit-learn takes a second to import, which runs on other data need not pay.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, classes = load_digits(return_X_y=True)
    inputs = (pixels / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        inputs, classes, test_size=_TEST_FRACTION, random_state=_TEST_SEED, stratify=classes
    )
    info = TaskInfo("tabular", (64,), 10)
    return classified(info, (train_x, train_y), (test_x, test_y))
