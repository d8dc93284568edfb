"""The table that flwr-datasets' partitioners divide in place of a whole dataset.

Imported only when a dataset is divided: the ``datasets`` library takes half a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import datasets
import numpy as np
from numpy.typing import NDArray


class IndexTable(datasets.Dataset):  # type: ignore[misc]  # the library has no types
    """Rows of a key, by which to divide, and a position.

    In Arrow format a column is one array; in the default one numpy walks it row by row.
    """

    @classmethod
    def of(cls, keys: NDArray[np.int64]) -> Self:
        """Build the table of ``keys`` at positions 0, 1, ..."""
        columns = {"key": keys, "position": np.arange(len(keys))}
        table: Self = cls.from_dict(columns).with_format("arrow")
        return table

    def select(self, indices: Iterable[int], *args: Any, **kwargs: Any) -> datasets.Dataset:
        """Select rows. As an array: ``datasets`` hashes a list number by number, in seconds."""
        return super().select(np.fromiter(indices, np.int64), *args, **kwargs)
