"""Plain values and arrays as one blob, without compression and without pickle.

A magic string of 16 bytes, the length of the header (8 bytes, little-endian), the header (JSON:
the values, and name, dtype and shape of each array), and the elements of the arrays, in order:
little-endian, in C order, with nothing between them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import CheckpointError

T = TypeVar("T")

_MAGIC: Final = b"fl-opt state 1\n\0"
_KINDS: Final = "biufc"
"""Kinds of dtypes that there may be: booleans, integers, real and complex numbers."""


def pack_state(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Serialize plain values and arrays.

    Parameters
    ----------
    values : mapping
        Text, numbers (also NaN and infinite ones), booleans, None, lists, and mappings whose
        keys are text. Tuples come back as lists.
    arrays : mapping of str to ndarray
        Booleans, integers, real or complex numbers, of any shape.

    Returns
    -------
    bytes

    Raises
    ------
    CheckpointError
        If a value or an array is of another kind.
    """
    _check_keys(values)
    little = {name: _little(name, array) for name, array in arrays.items()}
    table = [[name, array.dtype.str, list(array.shape)] for name, array in little.items()]
    try:
        header = json.dumps({"values": dict(values), "arrays": table}).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"state cannot be packed: {error}") from None
    parts = [array.reshape(-1).view(np.uint8).data for array in little.values()]
    return b"".join([_MAGIC, len(header).to_bytes(8, "little"), header, *parts])


def unpack_state(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what :func:`pack_state` made.

    Returns
    -------
    values : dict
    arrays : dict of str to ndarray
        Writable, with memory of their own, in the byte order of this machine.

    Raises
    ------
    CheckpointError
        On anything that is not exactly right.
    """
    start = len(_MAGIC) + 8
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise CheckpointError("not a packed state of a known version")
    at = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    arrays: dict[str, NDArray[Any]] = {}
    try:
        header = json.loads(data[start:at])
        values, table = dict(header["values"]), list(header["arrays"])
        for name, code, shape in table:
            dtype = np.dtype(code)
            if dtype.kind not in _KINDS or min(shape, default=0) < 0:
                raise ValueError(f"array {name!r} has dtype {code!r} and shape {shape}")
            flat = np.frombuffer(data, dtype, math.prod(shape), at)
            arrays[name] = flat.reshape(shape).astype(dtype.newbyteorder("="))
            at += flat.nbytes
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"damaged state: {error}") from None
    if at != len(data):
        raise CheckpointError(f"damaged state: {len(data)} bytes, not {at}")
    return values, arrays


def below(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Return what stands under names that begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in named.items()
        if name.startswith(prefix)
    }


def _little(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in _KINDS:
        raise CheckpointError(f"array {name!r}: dtype {array.dtype} cannot be packed")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _check_keys(value: Any) -> None:
    """Refuse keys that JSON would turn into text without a word."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise CheckpointError(f"state cannot be packed: key {key!r} is not text")
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for item in value:
        _check_keys(item)
