"""The last steps of a shared reference: bounded in memory, added up on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fl_opt.codecs import decode
from fl_opt.codecs.update import Vector
from fl_opt.exchange.lattice import encode_exactly, snap


@dataclass(frozen=True)
class Link:
    """One step of the reference.

    Attributes
    ----------
    base : str
        Fingerprint of the reference before it.
    version : int
        Version before it.
    payload : bytes
        One frame: the update that leads to the next version.
    """

    base: str
    version: int
    payload: bytes


class History:
    """Links in order, the oldest of which are dropped when they take too much memory.

    Parameters
    ----------
    size : int
        Entries of the model.
    step : float
        Of the lattice.
    limit : int
        Bytes of payloads that may be kept; the last link is kept in any case.
    """

    def __init__(self, size: int, step: float, limit: int) -> None:
        self._size = size
        self._step = step
        self._limit = limit
        self.links: deque[Link] = deque()
        self.num_bytes = 0
        self._reached = 0  # links that ``_difference`` adds up, from the newest one back
        self._difference: Vector | None = None
        self._sums: dict[str, bytes] = {}

    def append(self, link: Link) -> None:
        """Add the newest link."""
        self.links.append(link)
        self.num_bytes += len(link.payload)
        while self.num_bytes > self._limit and len(self.links) > 1:
            self.num_bytes -= len(self.links.popleft().payload)
        self._difference, self._reached = None, 0
        self._sums.clear()

    def lag(self, fingerprint: str) -> int:
        """Return how many links lead from a reference to the newest one; 0 if none do.

        Of equal references the newest counts.
        """
        for lag, link in enumerate(reversed(self.links), 1):
            if link.base == fingerprint:
                return lag
        return 0

    def chain(self, lag: int) -> bytes:
        """Return the payloads of the last links, one after the other."""
        start = len(self.links) - lag
        return b"".join(self.links[i].payload for i in range(start, len(self.links)))

    def total(self, lag: int) -> Vector:
        """Return the sum of the last links; float32, not to be changed."""
        if self._difference is None or self._reached > lag:
            self._difference, self._reached = np.zeros(self._size, np.float32), 0
        for index in range(self._reached, lag):
            payload = self.links[len(self.links) - 1 - index].payload
            self._difference += snap(decode(payload, size=self._size).to_dense(), self._step)
        self._reached = lag
        return self._difference

    def coded_sum(self, lag: int) -> bytes:
        """Return the sum of the last links as one payload that is exact."""
        base = self.links[-lag].base
        if base not in self._sums:
            self._sums[base] = min(encode_exactly(self.total(lag), self._step), key=len)
        return self._sums[base]

    def prepare(self, fingerprints: Iterable[str]) -> None:
        """Add up for many references in one pass."""
        for lag in sorted({self.lag(fingerprint) for fingerprint in fingerprints} - {0, 1}):
            self.coded_sum(lag)

    def memory_bytes(self) -> int:
        """Return the bytes of payloads and of the sum that is kept."""
        sums = sum(map(len, self._sums.values()))
        return self.num_bytes + sums + (4 * self._size if self._difference is not None else 0)
