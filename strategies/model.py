"""The global model, as a vector and as Flower has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from fl_opt.errors import ModelError
from fl_opt.exchange import records
from fl_opt.params import ParamSpec

Vector = NDArray[np.float32]
ExactArrays = dict[str, NDArray[Any]]


class GlobalModel:
    """What a strategy federates.

    Attributes
    ----------
    spec : ParamSpec
    vector : ndarray of float32, shape (size,)
        Only read: each step makes a new one.
    exact : dict of str to ndarray
        The arrays beside it.
    arrays : ArrayRecord or None
        The same as Flower's loop knows it; None before there is a model.
    """

    def __init__(self) -> None:
        self.spec = ParamSpec(())
        self.vector: Vector = np.empty(0, np.float32)
        self.exact: ExactArrays = {}
        self.arrays: ArrayRecord | None = None

    @property
    def dense_bytes(self) -> int:
        """Bytes of the vector as float32."""
        return 4 * self.spec.size

    def adopt(self, arrays: ArrayRecord, exact_patterns: Sequence[str]) -> bool:
        """Take over arrays that were set from outside; False for our own last ones.

        Raises
        ------
        ModelError
            If there is nothing to train, or an array cannot be sent.
        """
        if arrays is self.arrays:
            return False
        named = records.unpack_arrays(arrays)
        spec = ParamSpec.of(named, exact_patterns)
        if not spec.size:
            raise ModelError("the model has no floating-point arrays to train")
        self.spec = spec
        self.vector = spec.flatten(named)
        self.exact = spec.exact_part(named)
        self.arrays = arrays
        return True

    def move(self, vector: Vector, exact: ExactArrays) -> ArrayRecord:
        """Take over the next vector and the arrays beside it; return them all."""
        self.vector, self.exact = vector, exact
        self.arrays = self.packed(vector)
        return self.arrays

    def packed(self, vector: Vector) -> ArrayRecord:
        """Return a vector, with the arrays that are beside the model's, as Flower has them."""
        return records.pack_arrays(self.spec.unflatten(vector, self.exact))
