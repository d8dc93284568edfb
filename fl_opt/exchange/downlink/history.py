"""The last steps of a shared reference: bounded in memory, added up on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fl_opt.codecs.update import Vector
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.lattice import encode_exactly, snap
from fl_opt.exchange.masks import encode_mask
from fl_opt.exchange.moves import read_moves
from fl_opt.params import ParamSpec


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
        One frame, the update that leads to the next version; before it a mask, if that
        changes.
    before, after : Coverage or None
        What is not pruned in the reference before the step, and after it.
    """

    base: str
    version: int
    payload: bytes
    before: Coverage | None = None
    after: Coverage | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames of the payload."""
        return 1 + (self.before != self.after)


class History:
    """Links in order, the oldest of which are dropped when they take too much memory.

    Parameters
    ----------
    spec : ParamSpec
        Of the model.
    step : float
        Of the lattice.
    limit : int
        Bytes of payloads that may be kept; the last link is kept in any case.
    """

    def __init__(self, spec: ParamSpec, step: float, limit: int) -> None:
        self._spec = spec
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

    def num_frames(self, lag: int) -> int:
        """Return the number of frames of the last links."""
        return sum(self.links[-index].num_frames for index in range(1, lag + 1))

    def keeps_mask(self, lag: int) -> bool:
        """Whether nothing was pruned in the last links."""
        return self.links[-lag].before == self.links[-1].after

    def total(self, lag: int) -> Vector:
        """Return the sum of the last links; float32, not to be changed.

        It holds for what is not pruned after them.
        """
        if self._difference is None or self._reached > lag:
            self._difference, self._reached = np.zeros(self._spec.size, np.float32), 0
        for index in range(self._reached, lag):
            link = self.links[len(self.links) - 1 - index]
            for move in read_moves(link.payload, self._spec, link.before)[0]:
                if not isinstance(move, Coverage):
                    self._difference += snap(move.to_dense(), self._step)
        self._reached = lag
        return self._difference

    def coded_sum(self, lag: int) -> bytes:
        """Return the sum of the last links as one payload that is exact."""
        base, alive = self.links[-lag], self.links[-1].after
        if base.base not in self._sums:
            total = self.total(lag)
            if alive is not None:
                total = alive.gather(total)
            self._sums[base.base] = encode_mask(base.before, alive, self._spec.size) + min(
                encode_exactly(total, self._step), key=len
            )
        return self._sums[base.base]

    def prepare(self, fingerprints: Iterable[str]) -> None:
        """Add up for many references in one pass."""
        for lag in sorted({self.lag(fingerprint) for fingerprint in fingerprints} - {0, 1}):
            self.coded_sum(lag)

    def memory_bytes(self) -> int:
        """Return the bytes of payloads and of the sum that is kept."""
        sums = sum(map(len, self._sums.values()))
        difference = self._difference.nbytes if self._difference is not None else 0
        return self.num_bytes + sums + difference
