"""Codes that add up: what secure aggregation can sum without seeing any of them.

Secure aggregation (Bonawitz et al., CCS 2017; SecAgg+, Bell et al., CCS 2020) gives the server
the sum of integer vectors modulo a power of two, each hidden by masks that cancel. A payload of
:mod:`fl_opt.codecs` cannot be summed: positions and step sizes are each client's own. Here they
are everybody's: positions follow from the round's seed, the step is fixed in advance, and codes
have room for the sum of all clients.

>>> import numpy as np
>>> codec = SumCodec(size=8, density=0.5, step=0.25, bits=12, num_clients=3)
>>> updates = [np.float32([1, 2, 3, 4, 5, 6, 7, 8]) * sign for sign in (1, 1, -1)]
>>> codes = [codec.encode(u, shared_seed=7, seed=i) for i, u in enumerate(updates)]
>>> total = sum(codes[1:], start=codes[0]) % codec.modulus   # the server sees only this
>>> codec.decode(total, shared_seed=7).to_dense()
array([1., 0., 3., 0., 5., 0., 0., 8.], dtype=float32)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.base import check_vector
from fl_opt.codecs.draw import Draw
from fl_opt.codecs.select import RandK
from fl_opt.codecs.update import SparseUpdate, Vector
from fl_opt.errors import CodecError, ConfigError, PayloadError

Codes = NDArray[np.uint32]

MOST_BITS: Final = 32


@dataclass(frozen=True)
class SumCodec:
    """Integer codes on a grid that all clients share; the sum of codes is the sum's code.

    Every entry is rounded to a multiple of ``step``, up or down at random so that the mean
    over roundings is the entry, and cut to ``largest`` in magnitude. For at most
    ``num_clients`` clients the sum of such multiples fits into ``bits``, so that taken modulo
    ``2**bits`` it is exact.

    Parameters
    ----------
    size : int
        Entries of an update.
    density : float
        Fraction of the entries that travel, in (0, 1]: the same in all clients of a round,
        drawn from ``shared_seed``.
    step : float
        Distance of two levels; positive. About the spread of an entry divided by four makes
        the error of rounding small beside it.
    bits : int
        Of the modulus, 2 to 32. Each client sends ``bits`` for each entry that travels.
    num_clients : int
        How many codes are summed at most.

    Raises
    ------
    ConfigError
        If a value is out of range, or ``bits`` are too few for one step by each client.
    """

    size: int
    density: float
    step: float
    bits: int
    num_clients: int

    def __post_init__(self) -> None:
        RandK(self.density)  # checks it
        if self.size < 1:
            raise ConfigError(f"size = {self.size} is not at least 1")
        if not 0 < self.step < np.inf:
            raise ConfigError(f"step = {self.step} is not positive and finite")
        if not 2 <= self.bits <= MOST_BITS:
            raise ConfigError(f"bits = {self.bits} is not in [2, {MOST_BITS}]")
        if self.num_clients < 1:
            raise ConfigError(f"num_clients = {self.num_clients} is not at least 1")
        if not self.largest_code:
            raise ConfigError(
                f"bits = {self.bits} leave no level for each of num_clients = "
                f"{self.num_clients}: {self.num_clients.bit_length() + 1} or more do"
            )

    @property
    def modulus(self) -> int:
        """``2**bits``."""
        return 1 << self.bits

    @property
    def largest_code(self) -> int:
        """Magnitude of the largest code of one client: its share of half the modulus."""
        return int((self.modulus // 2 - 1) // self.num_clients)

    @property
    def largest(self) -> float:
        """Magnitude to which entries are cut."""
        return self.largest_code * self.step

    @property
    def count(self) -> int:
        """Entries that travel."""
        return self._draw(0).count

    def positions(self, shared_seed: int) -> NDArray[np.int64]:
        """Return which entries travel in a round: increasing int64, shape ``(count,)``."""
        return self._draw(shared_seed).positions()

    def _draw(self, shared_seed: int) -> Draw:
        return RandK(self.density).draw(self.size, shared_seed)

    def encode(self, vector: Vector, *, shared_seed: int, seed: int) -> Codes:
        """Encode one client's update.

        Parameters
        ----------
        vector : ndarray of float32, shape (size,)
            Finite. It is read only.
        shared_seed : int
            The same in all clients of a round.
        seed : int
            The client's own, not negative: source of its roundings, which are to be
            independent of others'.

        Returns
        -------
        ndarray of uint32, shape (count,)
            Codes modulo ``2**bits``, to be masked or summed.

        Raises
        ------
        CodecError
            If the vector has another shape or dtype, or holds NaN or infinity.
        """
        vector = check_vector(vector)
        if vector.size != self.size:
            raise CodecError(f"the update is float32 of {vector.size} entries, not {self.size}")
        drawn = RandK(self.density).select(vector, shared_seed, (vector.shape,))
        scaled = drawn.take(vector) / np.float64(self.step)
        np.clip(scaled, -self.largest_code, self.largest_code, out=scaled)
        scaled += np.random.default_rng(seed).random(self.count)
        codes = np.floor(scaled, out=scaled).astype(np.int64)
        np.clip(codes, -self.largest_code, self.largest_code, out=codes)  # 1.0 by rounding
        return (codes % self.modulus).astype(np.uint32)

    def decode(self, total: NDArray[np.integer], *, shared_seed: int) -> SparseUpdate:
        """Decode a sum of codes, or one client's.

        Parameters
        ----------
        total : ndarray of integer, shape (count,)
            The sum of at most ``num_clients`` codes modulo ``2**bits``, in [0, 2**bits).
        shared_seed : int
            What the codes were made with.

        Returns
        -------
        SparseUpdate
            The sum of the updates at their positions: multiples of ``step``, exact but for
            the rounding to float32. For the mean divide by the number of clients.

        Raises
        ------
        PayloadError
            If the codes have another shape or dtype, are out of range, or cannot be a sum of
            ``num_clients`` codes.
        """
        signed = self.signed(total)
        if int(np.abs(signed).max()) > self.largest_code * self.num_clients:
            raise PayloadError(
                f"the sum has levels beyond {self.num_clients} times {self.largest_code}: "
                "more than num_clients were summed"
            )
        values = (signed * np.float64(self.step)).astype(np.float32)
        return SparseUpdate(self.size, self.positions(shared_seed), values)

    def signed(self, codes: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return codes as the levels that they stand for, in [-2**(bits-1), 2**(bits-1)).

        Raises
        ------
        PayloadError
            If the codes have another shape or dtype, or are out of range.
        """
        if codes.shape != (self.count,) or codes.dtype.kind not in "iu":
            raise PayloadError(
                f"the codes are {codes.dtype} of shape {codes.shape}, not integers of shape "
                f"({self.count},)"
            )
        if int(codes.min()) < 0 or int(codes.max()) >= self.modulus:
            raise PayloadError(f"there are codes outside [0, {self.modulus})")
        levels = codes.astype(np.int64)
        levels[levels >= self.modulus // 2] -= self.modulus
        return levels
