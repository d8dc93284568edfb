"""Reader of IDX files, the format of MNIST and its successors.

A file is two zero bytes, one byte for the type of the entries (8: unsigned byte, the only
one these datasets use), one for the number of dimensions, the dimensions as big-endian
uint32 and then the entries. Source: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import DataError

_UNSIGNED_BYTE = 8


def read_idx(path: Path, num_dimensions: int) -> NDArray[np.uint8]:
    """Read a file of unsigned bytes, compressed when its name ends in ``.gz``.

    Parameters
    ----------
    path : Path
    num_dimensions : int
        How many dimensions it must have: 1 for labels, 3 for images.

    Returns
    -------
    ndarray of uint8

    Raises
    ------
    DataError
        If the file cannot be read, is not such a file or is not as long as its header says.
    """
    try:
        open_file = gzip.open if path.suffix == ".gz" else open
        with open_file(path, "rb") as stream:
            return _read(cast(IO[bytes], stream), path, num_dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _read(stream: IO[bytes], path: Path, num_dimensions: int) -> NDArray[np.uint8]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, num_dimensions])
    found = stream.read(len(magic))
    if found != magic:
        raise DataError(
            f"{path} is no IDX file of unsigned bytes in {num_dimensions} dimensions: "
            f"it starts with {found.hex(' ') or 'nothing'}, not {magic.hex(' ')}"
        )
    sizes = stream.read(4 * num_dimensions)
    if len(sizes) < 4 * num_dimensions:
        raise DataError(f"{path} ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    entries = bytearray(stream.read())
    if len(entries) != math.prod(shape):
        raise DataError(
            f"{path} holds {len(entries)} bytes of data, its header says {math.prod(shape)}"
        )
    return np.frombuffer(entries, np.uint8).reshape(shape)
