"""EDEN: rotate at random, quantize as normal numbers, scale so that the mean is right.

DRIVE (Vargaftik et al. 2021, "DRIVE: one-bit distributed mean estimation") and EDEN
(Vargaftik et al. 2022, "EDEN: communication-efficient and robust distributed mean
estimation for federated learning"). After a random rotation ``y = R x`` the entries look
normal whatever ``x`` is, so that ``c``, the nearest levels for normal numbers of the mean
square of ``y``, is a good quantizer. What is decoded is ``R^-1 (S c)`` with

- ``S = ||y||^2 / <c, y>``, which makes it unbiased, with an expected squared error of 0.571,
  0.133 and 0.036 times ``||x||^2`` at 1, 2 and 3 bits (``1 / (1 - D) - 1``, with ``D`` the
  distortion of the levels; ``pi / 2 - 1`` at 1 bit, where this is DRIVE), or
- ``S = <c, y> / ||c||^2``, which makes the error of this one vector least: ``D``, 0.363, 0.117
  and 0.035.

Each window of the rotation, and the few entries before its first, has a scale of its own: 4
bytes for 4,096 entries.

Below one bit, only the first part of each window is quantized, to one bit, and the unbiased
scale grows by the inverse of that part: ``n / k * ||y_k||^2 / <c, y_k>``. That is EDEN's random
sparsification before the rotation (``randk(p, unbiased) | eden(1)``: the squared error is
``pi / (2 p) - 1`` for both), but every entry has a share in what is sent, and there are
no positions. The rotation is random, so any fixed part of it is a random sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.gaussian import normal_centroids
from fl_opt.codecs.levels import (
    CHUNK,
    EXPONENT_LIMIT,
    Levels,
    chunks_of,
    largest_magnitude,
    look_up,
    scale_blocks,
    scale_exponent,
)
from fl_opt.codecs.lloyd import borders_of, nearest
from fl_opt.codecs.rotate import Rotation, window_for
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError, PayloadError
from fl_opt.wire import Reader, Writer

MAX_BITS: Final = 6
_MAX_SCALE: Final = 2.0**50
_SEED_BYTES: Final = 8


@dataclass(frozen=True)
class Rotated(Levels):
    """Levels of rotated values.

    Parameters
    ----------
    rotation : Rotation
    kept : int
        Codes of each window, at least one; before the first window, as many in proportion.
    exponent : int
        Decoded values are multiplied by ``2**exponent``.
    table : ndarray of float32, shape (2**bits,)
        Levels of rotated values with mean square one, in rising order, symmetric: the upper
        half is written.
    scales : ndarray of float32
        What the levels are multiplied by: before the first window, if there is something,
        then in each window.
    """

    rotation: Rotation
    kept: int
    exponent: int
    table: Vector
    scales: Vector

    wire_id: ClassVar[int] = 8

    @property
    def width(self) -> int:
        """Bits of a code."""
        return self.table.size.bit_length() - 1

    def num_codes(self, count: int) -> int:
        """Return how many rotated values have a code."""
        return _codes_in_head(self.rotation, self.kept) + (
            count // self.rotation.window * self.kept
        )

    def write(self, writer: Writer) -> None:
        """Append bits, kept, exponent, seed, table and scales."""
        writer.byte(self.width)
        writer.varint(self.kept)
        writer.array(np.array([self.exponent], np.int16))
        writer.raw(self.rotation.seed.to_bytes(_SEED_BYTES, "little"))
        writer.array(self.table[self.table.size // 2 :])
        writer.array(self.scales)

    @classmethod
    def read(cls, reader: Reader, count: int) -> Self:
        """Read what :meth:`write` wrote."""
        bits = reader.byte()
        if not 1 <= bits <= MAX_BITS:
            raise PayloadError(f"malformed payload: {bits} bits where 1 to {MAX_BITS} may be")
        kept = reader.varint(window_for(count))
        if kept < 1:
            raise PayloadError("malformed payload: no code in a window")
        exponent = int(reader.array(np.dtype(np.int16), 1)[0])
        if abs(exponent) > EXPONENT_LIMIT:
            raise PayloadError(f"malformed payload: exponent {exponent} is out of range")
        rotation = Rotation(count, int.from_bytes(reader.raw(_SEED_BYTES), "little"))
        upper = _read_positive(reader, 1 << (bits - 1))
        scales = _read_positive(reader, _num_scales(rotation))
        return cls(rotation, kept, exponent, np.concatenate([-upper[::-1], upper]), scales)

    def restore(self, codes: Unsigned) -> Vector:
        """Look the codes up, scale them and rotate back."""
        values = np.zeros(self.rotation.count, np.float32)
        start = _codes_in_head(self.rotation, self.kept)
        if start:
            values[:start] = self.table[codes[:start]] * self.scales[0]
        windows = values[self.rotation.head :].reshape(-1, self.rotation.window)
        scales = self.scales[self.scales.size - len(windows) :]
        for index in chunks_of(len(windows) * self.kept, self.kept):
            rows = slice(index.start // self.kept, index.stop // self.kept)
            part = look_up(self.table, codes[start + index.start : start + index.stop])
            scale_blocks(part, scales[rows], self.kept, part)
            windows[rows, : self.kept] = part.reshape(-1, self.kept)
        self.rotation.inverse(values)
        largest = np.finfo(np.float32).max
        # Noise on values at the end of single precision's range may lead out of it.
        limit = np.float32(min(math.ldexp(float(largest), -self.exponent), float(largest)))
        for index in chunks_of(values.size, 1):
            part = np.clip(values[index], -limit, limit, out=values[index])
            scale_exponent(part, self.exponent, part)
        return values


@dataclass(frozen=True)
class Eden:
    """A random rotation, then the best levels for normal values; see the module.

    Parameters
    ----------
    bits : float
        Bits a value: 1 to 6, whole, or any number from 1/64 to 1 (then that part of the rotated
        values has one bit each). ``eden(1)`` is DRIVE.
    scale : {"unbiased", "mmse"}
        Unbiased for sums over many clients without feedback; least squared error for one
        vector, and for error feedback.
    """

    bits: float = 1.0
    scale: Literal["unbiased", "mmse"] = "unbiased"

    name: ClassVar[str] = "eden"
    needs_selection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole = 1.0 <= self.bits <= MAX_BITS and float(self.bits).is_integer()
        if not (whole or 1 / 64 <= self.bits < 1.0):
            raise ConfigError(
                f"bits = {self.bits} is not 1, 2, ..., {MAX_BITS} or between 1/64 and 1"
            )
        if self.scale not in ("unbiased", "mmse"):
            raise ConfigError(f"scale = {self.scale!r} is not 'unbiased' or 'mmse'")

    def quantize(self, values: Vector, seed: int) -> tuple[Unsigned, Levels]:
        """Rotate a copy of the values and quantize it window by window."""
        table = normal_centroids(max(1, int(self.bits)))
        rotation = Rotation(values.size, seed % (1 << 64))
        kept = math.ceil(min(1.0, self.bits) * rotation.window)
        exponent = math.frexp(largest_magnitude(values))[1]
        rotated = np.empty_like(values)
        for index in chunks_of(values.size, 1):
            scale_exponent(values[index], -exponent, rotated[index])
        rotation.forward(rotated)
        levels = Rotated(
            rotation,
            kept,
            exponent,
            table.astype(np.float32),
            np.empty(_num_scales(rotation), np.float32),
        )
        return self._codes_of(rotated, levels), levels

    def _codes_of(self, rotated: Vector, levels: Rotated) -> NDArray[np.uint8]:
        """Return the codes of rotated values, and fill in the scales."""
        rotation, kept = levels.rotation, levels.kept
        codes = np.empty(levels.num_codes(rotated.size), np.uint8)
        start = _codes_in_head(rotation, kept)
        if start:
            head = rotated[None, :start]
            codes[:start], levels.scales[:1] = self._quantize_rows(
                head, rotation.head, levels.table
            )
        windows = rotated[rotation.head :].reshape(-1, rotation.window)
        scales = levels.scales[levels.scales.size - len(windows) :]
        step = max(1, CHUNK // rotation.window)
        for first in range(0, len(windows), step):
            rows = windows[first : first + step, :kept]
            at = start + first * kept
            part, scales[first : first + step] = self._quantize_rows(
                rows, rotation.window, levels.table
            )
            codes[at : at + part.size] = part
        return codes

    def _quantize_rows(
        self, rows: Vector, length: int, table: Vector
    ) -> tuple[NDArray[np.uint8], Vector]:
        """Quantize the kept entries of stretches of ``length`` entries, one a row."""
        energy = np.square(rows).sum(axis=1, dtype=np.float64)
        if table.size == 2:  # the same as below, without a table
            codes = (rows > 0).view(np.uint8)
            inner = np.abs(rows).sum(axis=1, dtype=np.float64) * table[1]
            length_squared = np.full(len(rows), float(table[1]) ** 2 * rows.shape[1])
        else:
            root = np.sqrt(energy / rows.shape[1]).astype(np.float32)
            inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
            codes = nearest(rows * inverse[:, None], borders_of(table.astype(np.float64)))
            centroids = look_up(table, codes.reshape(-1)).reshape(codes.shape)
            inner = (centroids * rows).sum(axis=1, dtype=np.float64)
            length_squared = np.square(centroids).sum(axis=1, dtype=np.float64)
        if self.scale == "unbiased":
            numerator, denominator = energy * (length / rows.shape[1]), inner
        else:
            numerator, denominator = inner, length_squared
        scales = np.zeros(len(rows))
        np.divide(numerator, denominator, out=scales, where=inner > 0)
        return codes.reshape(-1), scales.astype(np.float32)


def _codes_in_head(rotation: Rotation, kept: int) -> int:
    return -(-kept * rotation.head // rotation.window)


def _num_scales(rotation: Rotation) -> int:
    return rotation.count // rotation.window + (rotation.head > 0)


def _read_positive(reader: Reader, count: int) -> Vector:
    numbers = reader.array(np.dtype(np.float32), count).astype(np.float32)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() <= _MAX_SCALE):
        raise PayloadError("malformed payload: a scale or level is negative, NaN or too large")
    return numbers
