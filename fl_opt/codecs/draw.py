"""Random positions that a seed describes: both ends draw them, none travel.

The rule is part of the format. The raw 64-bit outputs of Philox4x64-10 with the seed as its
key and a counter from zero are reduced modulo the size of the vector, and the first
``count`` distinct numbers are taken; where more than half of the vector is wanted, the first
``size - count`` distinct numbers are those left out. The remainder favours low positions by
less than one part in 2**24. numpy keeps the raw outputs of its bit generators the same on
every machine and in every version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from fl_opt.codecs.update import Positions, Vector
from fl_opt.wire import Reader, Writer

_SEED_BYTES = 8


@dataclass(frozen=True)
class Draw:
    """``count`` positions out of ``size``, each set of them equally likely.

    Parameters
    ----------
    size, count : int
        Entries of the vector, and how many of them are drawn.
    seed : int
        In [0, 2**64).
    gain : float
        What the drawn entries are multiplied by before they are quantized; the receiver
        need not know.
    """

    size: int
    count: int
    seed: int
    gain: float = 1.0

    def positions(self) -> Positions:
        """Draw: strictly increasing int64, shape ``(count,)``; ``size`` bytes of memory."""
        inverted = 2 * self.count > self.size
        wanted = self.size - self.count if inverted else self.count
        drawn = np.zeros(self.size, np.bool_)
        stream = np.random.Philox(key=self.seed)
        missing = wanted
        # As many draws as are missing cannot give too many, so none needs to be taken back.
        while missing:
            drawn[stream.random_raw(missing) % np.uint64(self.size)] = True
            missing = wanted - int(np.count_nonzero(drawn))
        if inverted:
            np.logical_not(drawn, out=drawn)
        return np.flatnonzero(drawn)

    def take(self, vector: Vector) -> Vector:
        """Return the drawn entries times the gain, cut to the range of single precision."""
        values: Vector = vector[self.positions()]
        if self.gain != 1.0:
            largest = np.finfo(np.float32).max / np.float32(self.gain)
            limit = np.nextafter(largest, np.float32(0))  # not up to infinity
            np.clip(values, -limit, limit, out=values)
            values *= np.float32(self.gain)
        return values

    def write(self, writer: Writer) -> None:
        """Append count and seed."""
        writer.varint(self.count)
        if self.count:
            writer.raw(self.seed.to_bytes(_SEED_BYTES, "little"))

    @classmethod
    def read(cls, reader: Reader, size: int) -> Self:
        """Read what :meth:`write` wrote; nothing is drawn yet."""
        count = reader.varint(size)
        seed = int.from_bytes(reader.raw(_SEED_BYTES), "little") if count else 0
        return cls(size, count, seed)
