"""A stream of bits, written and read by whole arrays.

Bits fill bytes from the lowest up. In memory a bit is a byte of 0 or 1, so that numpy can work
on many of them at once; numbers of several bits are laid out in planes: the lowest bits of
all of them, then the next ones, and so on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import PayloadError
from fl_opt.wire import Reader

Bits = NDArray[np.uint8]
Integers = NDArray[np.signedinteger[Any]]

_BYTE = 8


class BitWriter:
    """Collects bits; they are packed once, at the end."""

    def __init__(self) -> None:
        self._parts: list[Bits] = []

    def bits(self, bits: Bits | NDArray[np.bool_]) -> None:
        """Append bits, given as an array of zeros and ones."""
        self._parts.append(bits.view(np.uint8))

    def number(self, value: int, width: int) -> None:
        """Append one number of ``width`` bits."""
        self.planes(np.array([value], np.int64), width)

    def count(self, value: int) -> None:
        """Append a positive number in Elias' gamma code: its length in unary first."""
        width = value.bit_length() - 1
        self.number(1 << width, width + 1)
        self.number(value - (1 << width), width)

    def planes(self, values: Integers, width: int) -> None:
        """Append the lowest ``width`` bits of each value."""
        for first in range(0, width, _BYTE):
            octets = (values >> first).astype(np.uint8)
            for bit in range(min(_BYTE, width - first)):
                # Comparing is several times as fast as shifting bytes.
                self.bits((octets & np.uint8(1 << bit)) != 0)

    def to_bytes(self) -> bytes:
        """Pack everything, the last byte filled up with zeros."""
        if not self._parts:
            return b""
        return np.packbits(np.concatenate(self._parts), bitorder="little").tobytes()


class BitReader:
    """Reads what :class:`BitWriter` wrote, taking bytes from a reader as it needs them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rest: Bits = np.empty(0, np.uint8)

    def bits(self, count: int) -> Bits:
        """Read ``count`` bits as an array of zeros and ones.

        Raises
        ------
        PayloadError
            If there are fewer; nothing is allocated before that is known.
        """
        missing = count - self._rest.size
        if missing > 0:
            octets = np.frombuffer(self._reader.raw((missing + 7) // 8), np.uint8)
            more = np.unpackbits(octets, bitorder="little")
            self._rest = np.concatenate([self._rest, more]) if self._rest.size else more
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def number(self, width: int) -> int:
        """Read one number of ``width`` bits."""
        return int(self.planes(1, width, np.dtype(np.int64))[0])

    def count(self, limit: int) -> int:
        """Read a positive number of at most ``limit``."""
        width = 0
        while not self.bits(1)[0]:
            width += 1
            if width >= limit.bit_length():
                raise PayloadError(f"malformed payload: a count of more than {limit}")
        value = (1 << width) + self.number(width)
        if value > limit:
            raise PayloadError(f"malformed payload: {value} where at most {limit} is allowed")
        return value

    def planes(
        self, count: int, width: int, dtype: np.dtype[np.signedinteger[Any]]
    ) -> Integers:
        """Read ``count`` numbers of ``width`` bits."""
        planes = self.bits(count * width).reshape(width, count)
        values = np.zeros(count, dtype)
        for first in range(0, width, _BYTE):
            octets = np.zeros(count, np.uint8)
            for plane in planes[first : first + _BYTE][::-1]:
                octets += octets  # as a shift, but faster
                octets |= plane
            values |= octets.astype(dtype) << first if first else octets
        return values

    def finish(self) -> None:
        """Check that the bits that fill up the last byte are zero."""
        if self._rest.size >= _BYTE or self._rest.any():
            raise PayloadError("malformed payload: padding bits are not zero")
