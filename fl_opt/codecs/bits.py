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
    if width >= _BYTE:
        rest: Unsigned = codes >> _BYTE  # type: ignore[assignment]
        return codes.astype(np.uint8).tobytes() + pack(rest, width - _BYTE)
    small = codes.astype(np.uint8, copy=False)
    if width == 1:
        return np.packbits(small, bitorder="little").tobytes()
    groups = np.zeros((-(-small.size // 8), 8), np.uint8)
    groups.reshape(-1)[: small.size] = small
    words = np.zeros(len(groups), np.uint64)
    for lane in range(8):
        words |= groups[:, lane].astype(np.uint64) << np.uint64(lane * width)
    octets = words.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :width]
    return octets.tobytes()[: packed_size(small.size, width)]


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
    groups = -(-count // 8)
    octets = np.zeros((groups, 8), np.uint8)
    padded = np.zeros(groups * width, np.uint8)
    padded[: data.size] = data
    octets[:, :width] = padded.reshape(groups, width)
    words = octets.reshape(-1).view("<u8")
    codes = np.empty((groups, 8), np.uint8)
    mask = np.uint64((1 << width) - 1)
    for lane in range(8):
        codes[:, lane] = (words >> np.uint64(lane * width)) & mask
    return codes.reshape(-1)[:count]
