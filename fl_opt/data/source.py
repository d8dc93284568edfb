"""A dataset before it is divided among clients: what each dataset's file returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl_opt.data.examples import Examples, TaskInfo


@dataclass(frozen=True)
class Source:
    """All examples of a dataset, in as few bytes as they need.

    Attributes
    ----------
    info : TaskInfo
    train, test : Examples
        Images may be uint8 pixels and text uint8 codes: :func:`ready` makes model inputs of
        them, for one client at a time.
    classes : ndarray of int64, shape (len(train),), optional
        What class-skewed partitions divide by; None where an example has no single class.
    owners : ndarray of int64, shape (len(train),), optional
        Whom each example belongs to by nature, as ids 0, 1, ...; None where nobody.
    """

    info: TaskInfo
    train: Examples
    test: Examples
    classes: NDArray[np.int64] | None = None
    owners: NDArray[np.int64] | None = None


def classified(
    info: TaskInfo,
    train: tuple[NDArray[Any], NDArray[Any]],
    test: tuple[NDArray[Any], NDArray[Any]],
) -> Source:
    """Build a source from arrays of inputs and of classes."""
    return Source(info, _examples(*train), _examples(*test), train[1].astype(np.int64))


def ready(examples: Examples) -> Examples:
    """Turn stored examples into what models take.

    Floating-point inputs stay as they are, uint8 pixels become float32 in [0, 1], uint8 text
    codes (those with a target at each position) and all targets become int64.
    """
    inputs, targets = examples.inputs, examples.targets
    if inputs.dtype == torch.uint8:
        is_text = targets.ndim > 1
        inputs = inputs.long() if is_text else inputs.to(torch.float32).div_(255.0)
    return Examples(inputs, targets.long())


def _examples(inputs: NDArray[Any], classes: NDArray[Any]) -> Examples:
    return Examples(
        torch.from_numpy(np.ascontiguousarray(inputs)),
        torch.from_numpy(classes.astype(np.int64)),
    )
