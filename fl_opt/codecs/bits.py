"""Fixed-width bit packing of unsigned integers, vectorised.

Widths of 8 and 16 are plain bytes. Below 8, eight codes share ``width`` bytes. Above 8, the
low bytes come first, as they are, and the rest follows, packed the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import PayloadError
from fl_opt.wire import Reader

Unsigned = NDArray[np.unsignedinteger[Any]]

_BYTE = 8
MAX_WIDTH = 64
_CHUNK = 1 << 16
_LANES = (8, 16, 32)


def packed_size(count: int, width: int) -> int:
    """Return the number of bytes that ``count`` integers of ``width`` bits are packed into."""
    whole, rest = divmod(width, _BYTE)
    return count * whole + (count * rest + 7) // 8


def pack(codes: Unsigned, width: int) -> bytes:
    """Pack integers into ``width`` bits each.

    Parameters
    ----------
    codes : ndarray of unsigned int, 1-D
        Each below ``2**width``.
    width : int
        From 0 to 64.
    """
    if width == 0:
        return b""
    if width == _BYTE:
        return codes.astype(np.uint8, copy=False).tobytes()
    if width > _BYTE:
        rest: Unsigned = codes >> _BYTE  # type: ignore[assignment]
        return codes.astype(np.uint8).tobytes() + pack(rest, width - _BYTE)
    small = codes.astype(np.uint8, copy=False)
    if width == 1:
        return np.packbits(small, bitorder="little").tobytes()
    packed = np.empty((-(-small.size // 8), width), np.uint8)
    for start in range(0, small.size, _CHUNK):
        part = small[start : start + _CHUNK]
        words = np.zeros(-(-part.size // 8), "<u8")
        words.view(np.uint8)[: part.size] = part
        _close_up(words, width)
        octets = words.view(np.uint8).reshape(-1, 8)
        packed[start // 8 : start // 8 + len(words)] = octets[:, :width]
    return packed.tobytes()[: packed_size(small.size, width)]


def unpack(reader: Reader, count: int, width: int) -> Unsigned:
    """Read what :func:`pack` wrote.

    Returns
    -------
    ndarray of unsigned int
        uint8 up to 8 bits, uint16 up to 16, else uint64; shape ``(count,)``.

    Raises
    ------
    PayloadError
        If bytes are missing or a padding bit is set.
    """
    if width <= _BYTE:
        return _unpack_byte(reader, count, width)
    dtype: type[Any] = np.uint16 if width <= 2 * _BYTE else np.uint64
    codes = _unpack_byte(reader, count, _BYTE).astype(dtype)
    codes |= unpack(reader, count, width - _BYTE).astype(dtype) << dtype(_BYTE)
    return codes


def _unpack_byte(reader: Reader, count: int, width: int) -> NDArray[np.uint8]:
    data = np.frombuffer(reader.raw(packed_size(count, width)), np.uint8)
    if width in (0, _BYTE):
        return data if width else np.zeros(count, np.uint8)
    used = count * width % 8
    if used and data[-1] >> used:
        raise PayloadError("malformed payload: padding bits are not zero")
    if width == 1:
        return np.unpackbits(data, count=count, bitorder="little")
    codes = np.empty(count, np.uint8)
    for start in range(0, count, _CHUNK):
        part = codes[start : start + _CHUNK]
        source = data[start // 8 * width : (start + _CHUNK) // 8 * width]
        words = np.zeros(-(-part.size // 8), "<u8")
        octets = words.view(np.uint8).reshape(-1, 8)
        whole = source.size // width
        octets[:whole, :width] = source[: whole * width].reshape(whole, width)
        octets[whole:, : source.size - whole * width] = source[whole * width :]
        _spread_out(words, width)
        part[...] = words.view(np.uint8)[: part.size]
    return codes


def _close_up(words: NDArray[np.uint64], width: int) -> None:
    """Bring the low ``width`` bits of the eight bytes of each word together, in place.

    Neighbours move together, then pairs, then fours.
    """
    for lane in _LANES:
        mask = _every(2 * lane, lane)
        upper = (words >> np.uint64(lane)) & mask
        upper <<= np.uint64(lane // _BYTE * width)
        words &= mask
        words |= upper


def _spread_out(words: NDArray[np.uint64], width: int) -> None:
    """Undo :func:`_close_up`, in place."""
    for lane in reversed(_LANES):
        half = lane // _BYTE * width
        mask = _every(2 * lane, half)
        upper = (words >> np.uint64(half)) & mask
        upper <<= np.uint64(lane)
        words &= mask
        words |= upper


def _every(lane: int, ones: int) -> np.uint64:
    """Return a word with the lowest bits of each of its lanes set."""
    return np.uint64(sum(((1 << ones) - 1) << start for start in range(0, 64, lane)))
