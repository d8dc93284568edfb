"""A stage before selection: matrices as products of two thin ones (PowerSGD).

Vogels et al. 2019 ("PowerSGD: practical low-rank gradient compression"), algorithm 1: for each
matrix M, ``P = M Q``, orthogonalise P, ``Q = M^T P``; then ``M ~ P Q^T``. There, the mean of P
over all workers is exchanged before Q is computed, and Q is kept for the next step. A federated
client answers once a round and may come rarely, so here each client factors its own update: Q
starts from random numbers and goes through a few more power iterations, which takes the place
of the warm start and needs no state. Error feedback stands outside, as for any codec.

The factors and whatever is no matrix form a shorter vector, which goes on through selection,
quantization and coding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.base import BodyEncoder, Codec
from fl_opt.codecs.select import All
from fl_opt.codecs.update import Layout, Vector
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import Reader, Writer

LOW_RANK_METHOD: Final = 16
"""Stands where other updates have their position method."""
_MAX_PARTS: Final = 1 << 17


@dataclass(frozen=True)
class Part:
    """A stretch of the vector.

    A matrix of ``rows`` by ``columns`` sent at ``rank``, or ``rows`` entries sent as they are
    (rank 0).
    """

    rows: int
    columns: int = 1
    rank: int = 0

    @property
    def size(self) -> int:
        """Number of entries in the vector."""
        return self.rows * self.columns

    @property
    def reduced_size(self) -> int:
        """Number of entries that are sent."""
        return self.rank * (self.rows + self.columns) if self.rank else self.rows


@dataclass(frozen=True)
class Parts:
    """How a vector is divided; what a receiver needs to put it together again."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Number of entries of the vector."""
        return sum(part.size for part in self.parts)

    @property
    def reduced_size(self) -> int:
        """Number of entries that are sent."""
        return sum(part.reduced_size for part in self.parts)

    def write(self, writer: Writer) -> None:
        """Append the number of parts, and of each its rank, rows and (matrices) columns."""
        writer.varint(len(self.parts))
        for part in self.parts:
            writer.varint(part.rank)
            writer.varint(part.rows)
            if part.rank:
                writer.varint(part.columns)

    @classmethod
    def read(cls, reader: Reader, size: int) -> Self:
        """Read what :meth:`write` wrote; PayloadError unless it fits a vector of ``size``."""
        parts = []
        left = size
        for _ in range(reader.varint(_MAX_PARTS)):
            rank = reader.varint(left)
            rows = reader.varint(left)
            part = Part(rows, reader.varint(left) if rank else 1, rank)
            left -= part.size
            if left < 0 or part.size < 1 or part.reduced_size > part.size:
                raise PayloadError("malformed payload: low-rank parts do not fit the model")
            parts.append(part)
        if left:
            raise PayloadError(f"malformed payload: low-rank parts leave {left} entries out")
        return cls(tuple(parts))

    def restore(self, reduced: Vector) -> Vector:
        """Return the vector, shape ``(size,)``, from what was sent.

        Products are summed rank by rank, entry by entry: the same bits on every machine.
        """
        vector = np.empty(self.size, np.float32)
        start = taken = 0
        for part in self.parts:
            sent = reduced[taken : taken + part.reduced_size]
            out = vector[start : start + part.size]
            if part.rank:
                left, right = _split(sent, part)
                matrix = out.reshape(part.rows, part.columns)
                with np.errstate(over="ignore", invalid="ignore"):
                    np.multiply(left[:, :1], right[:, 0], out=matrix)
                    for column in range(1, part.rank):
                        matrix += left[:, column : column + 1] * right[:, column]
            else:
                out[...] = sent
            start += part.size
            taken += part.reduced_size
        if not np.isfinite(vector).all():
            raise PayloadError("malformed payload: a product of factors is not finite")
        return vector


@dataclass(frozen=True)
class PowerSgd:
    """Factors every matrix for which that is shorter.

    Arrays of more than two dimensions are matrices of their first against all others, as
    convolutions are in the paper.

    Parameters
    ----------
    rank : int
        Columns of the factors.
    iterations : int
        Power iterations; 1 is the paper's single one, from a random start.
    """

    rank: int = 2
    iterations: int = 2

    name: ClassVar[str] = "powersgd"

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 1024:
            raise ConfigError(f"rank = {self.rank} is not between 1 and 1024")
        if not 1 <= self.iterations <= 16:
            raise ConfigError(f"iterations = {self.iterations} is not between 1 and 16")

    def reduce(self, vector: Vector, layout: Layout, seed: int) -> tuple[Parts, Vector]:
        """Return the parts and the shorter vector.

        Parameters
        ----------
        vector : ndarray of float32, shape (size,)
            Finite.
        layout : tuple of shapes
            Their sizes add up to ``size``.
        seed : int
            Of the random start.
        """
        generator = np.random.Generator(np.random.Philox(seed))
        parts = self._divide(layout)
        reduced = np.empty(parts.reduced_size, np.float32)
        start = taken = 0
        for part in parts.parts:
            values = vector[start : start + part.size]
            out = reduced[taken : taken + part.reduced_size]
            if part.rank:
                self._factor(values.reshape(part.rows, part.columns), generator, out, part)
            else:
                out[...] = values
            start += part.size
            taken += part.reduced_size
        return parts, reduced

    def _divide(self, layout: Layout) -> Parts:
        parts: list[Part] = []
        for shape in layout:
            size = math.prod(shape)
            rows = shape[0] if len(shape) > 1 else 1
            columns = size // rows if rows else 0
            if self.rank * (rows + columns) < size:
                parts.append(Part(rows, columns, self.rank))
            elif parts and not parts[-1].rank:
                parts[-1] = Part(parts[-1].rows + size)
            elif size:
                parts.append(Part(size))
        return Parts(tuple(parts))

    def _factor(
        self,
        matrix: NDArray[np.float32],
        generator: np.random.Generator,
        out: Vector,
        part: Part,
    ) -> None:
        left, right = _split(out, part)
        # In units of its largest entry: products of tiny or huge numbers stay in range.
        unit = np.abs(matrix).max()
        if unit == 0.0:
            out[...] = 0.0
            return
        scaled = matrix / unit
        factor = generator.standard_normal((part.columns, part.rank), np.float32)
        for _ in range(self.iterations):
            basis, _ = np.linalg.qr(scaled @ factor)
            factor = scaled.T @ basis
        # Both factors of one magnitude, so that a quantizer treats them alike.
        balance = math.sqrt(
            float(np.abs(factor).max()) * float(unit) / float(np.abs(basis).max())
        )
        np.multiply(basis, np.float32(balance), out=left)
        np.multiply(factor, np.float32(float(unit) / balance), out=right)


@dataclass(frozen=True)
class ReducedCodec(BodyEncoder):
    """A codec for the factors of a vector's matrices."""

    spec: str
    stage: PowerSgd
    codec: Codec

    def write(
        self,
        writer: Writer,
        vector: Vector,
        *,
        seed: int,
        layout: Layout,
        names: Sequence[str] | None = None,
    ) -> None:
        """Append size, parts, and the shorter vector through the codec."""
        All().select(vector, seed, layout)  # finite, with positions in the whole vector
        parts, reduced = self.stage.reduce(vector, layout, seed)
        writer.varint(vector.size)
        writer.byte(LOW_RANK_METHOD)
        parts.write(writer)
        self.codec.write(writer, reduced, seed=seed, layout=(reduced.shape,))


def _split(values: Vector, part: Part) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return views of both factors: shapes (rows, rank) and (columns, rank)."""
    middle = part.rows * part.rank
    return (
        values[:middle].reshape(part.rows, part.rank),
        values[middle:].reshape(part.columns, part.rank),
    )
