"""The frame around everything that travels: format version 1.

A frame is a header of at least ten bytes and a body::

    offset  size  field
    0       3     magic "flo"
    3       1     format version: 1
    4       4     CRC-32 (little-endian) of everything after it
    8       1     kind of the body: 1 update, 2 exact arrays, 3 mask
    9       1-6   length of the body (varint)
    ...           the body

A blob is one frame or several one after the other. Integers are little-endian; a *varint*
is the unsigned LEB128 of protobuf, in its shortest form. ``docs/wire-format.md`` describes the
bodies.

Nothing in a frame is believed before it is checked: :class:`Reader` compares every length
with the bytes that are left, so that a short payload cannot ask for much memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import PayloadError

MAGIC: Final = b"flo"
VERSION: Final = 1
MAX_SIZE: Final = 1 << 40
"""Largest number of entries a payload may speak of."""
MAX_FRAMES: Final = 256
"""Most frames in one blob: updates, and the exact arrays beside them."""

_CRC_START: Final = len(MAGIC) + 1
_CRC_END: Final = _CRC_START + 4
_MAX_VARINT_BYTES: Final = 6


class FrameKind(IntEnum):
    """What the body of a frame holds."""

    UPDATE = 1
    EXACT = 2
    MASK = 3


def write_varint(value: int) -> bytes:
    """Encode a non-negative integer below 2**42 in LEB128."""
    if not 0 <= value < 1 << (7 * _MAX_VARINT_BYTES):
        raise ValueError(f"varint out of range: {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Writer:
    """Collects the parts of a body; the bytes are joined once, at the end."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []

    def byte(self, value: int) -> None:
        """Append one byte."""
        self._parts.append(bytes((value,)))

    def varint(self, value: int) -> None:
        """Append a non-negative integer."""
        self._parts.append(write_varint(value))

    def raw(self, data: bytes) -> None:
        """Append bytes as they are; the reader knows how many there are."""
        self._parts.append(data)

    def array(self, values: NDArray[np.generic]) -> None:
        """Append the entries of an array, little-endian; the reader knows their number."""
        little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        self._parts.append(little.reshape(-1).view(np.uint8).data)

    def to_frame(self, kind: FrameKind) -> bytes:
        """Join everything into one frame of the given kind."""
        length = sum(len(part) for part in self._parts)
        head = bytes((kind,)) + write_varint(length)
        crc = zlib.crc32(head)
        for part in self._parts:
            crc = zlib.crc32(part, crc)
        return b"".join(
            [MAGIC, bytes((VERSION,)), crc.to_bytes(4, "little"), head, *self._parts]
        )


class Reader:
    """Reads a body from front to back and refuses whatever is not exactly right.

    Parameters
    ----------
    data : memoryview
        The bytes to read; arrays are views of it.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Number of bytes not read yet."""
        return len(self._data) - self._at

    def raw(self, length: int) -> memoryview:
        """Read ``length`` bytes."""
        if not 0 <= length <= self.left:
            raise PayloadError(f"truncated payload: {length} bytes wanted, {self.left} left")
        start, self._at = self._at, self._at + length
        return self._data[start : self._at]

    def byte(self) -> int:
        """Read one byte."""
        return self.raw(1)[0]

    def peek(self) -> int:
        """Return the next byte without reading it."""
        value = self.byte()
        self._at -= 1
        return value

    def varint(self, limit: int = MAX_SIZE) -> int:
        """Read a non-negative integer of at most ``limit``."""
        value = 0
        for index in range(_MAX_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if index and byte == 0:
                    raise PayloadError(
                        "malformed payload: a number is not in its shortest form"
                    )
                if value > limit:
                    raise PayloadError(
                        f"malformed payload: {value} where at most {limit} is allowed"
                    )
                return value
        raise PayloadError("malformed payload: a number is too long")

    def array(self, dtype: np.dtype[np.generic], count: int) -> NDArray[np.generic]:
        """Read ``count`` little-endian entries of ``dtype`` as a read-only view."""
        little = dtype.newbyteorder("<")
        return np.frombuffer(self.raw(count * little.itemsize), dtype=little)

    def finish(self) -> None:
        """Check that nothing is left over."""
        if self.left:
            raise PayloadError(f"malformed payload: {self.left} bytes too many")


def split_frames(blob: bytes | memoryview) -> Iterator[tuple[FrameKind, memoryview]]:
    """Yield kind and body of each frame in a blob, checksum verified.

    Raises
    ------
    PayloadError
        If any frame is foreign, of another version, damaged, truncated or of unknown kind,
        if there are more than ``MAX_FRAMES``, or none.
    """
    view = memoryview(blob)
    if not view:
        raise PayloadError("empty payload")
    for _ in range(MAX_FRAMES):
        kind, body, used = _read_frame(view)
        yield kind, body
        view = view[used:]
        if not view:
            return
    raise PayloadError(f"malformed payload: more than {MAX_FRAMES} frames")


def read_frame(payload: bytes | memoryview, kind: FrameKind) -> Reader:
    """Return a reader for the body of the one frame that ``payload`` must be."""
    found, body, used = _read_frame(memoryview(payload))
    if found is not kind:
        raise PayloadError(f"payload holds {found.name.lower()}, expected {kind.name.lower()}")
    if used != len(payload):
        raise PayloadError(f"malformed payload: {len(payload) - used} bytes too many")
    return Reader(body)


def _read_frame(view: memoryview) -> tuple[FrameKind, memoryview, int]:
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise PayloadError("not an fl-opt payload: it does not start with 'flo'")
    reader = Reader(view[len(MAGIC) :])
    version = reader.byte()
    if version != VERSION:
        raise PayloadError(f"payload has format version {version}, only {VERSION} is known")
    crc = int.from_bytes(reader.raw(4), "little")
    kind = reader.byte()
    body = reader.raw(reader.varint())
    used = len(view) - reader.left
    if zlib.crc32(view[_CRC_END:used]) != crc:
        raise PayloadError("damaged payload: checksum does not match")
    try:
        return FrameKind(kind), body, used
    except ValueError:
        raise PayloadError(f"payload is of unknown kind {kind}") from None
