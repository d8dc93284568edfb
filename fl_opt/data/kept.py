"""Things kept in memory for the next time, within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The values used last; what no longer fits is forgotten, the last one never.

    Parameters
    ----------
    most : int
        Of values.
    most_bytes : int
        Of all values together.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[Value, int]]) -> Value:
        """Return the value of a key; where there is none, ``make`` returns it and its bytes."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > 1 and self._full():
                self._values.popitem(last=False)
            return self._values[key][0]

    def _full(self) -> bool:
        total = sum(size for _, size in self._values.values())
        return len(self._values) > self._most or total > self._most_bytes
