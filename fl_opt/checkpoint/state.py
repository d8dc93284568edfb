"""Plain values and arrays as one blob: safetensors, with the values as JSON in its header.

Any reader of safetensors shows the arrays, and nothing in it can be executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fl_opt.errors import CheckpointError

T = TypeVar("T")

_STATE: Final = "fl-opt state 2"
"""The one entry of the metadata: the values, and the names of the arrays in their order."""
_METADATA: Final = "__metadata__"
_CODES: Final = frozenset("?bhilqBHILQefd")
"""Booleans, integers and real numbers of up to 64 bits, by numpy's characters."""


def pack_state(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Serialize plain values and arrays.

    Parameters
    ----------
    values : mapping
        Text, numbers (also NaN and infinite ones), booleans, None, lists, and mappings whose
        keys are text. Tuples come back as lists.
    arrays : mapping of str to ndarray
        Booleans, integers or real numbers, of any shape.

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
    try:
        text = json.dumps({"values": dict(values), "arrays": list(little)})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"state cannot be packed: {error}") from None
    return save(little, {_STATE: text})


def unpack_state(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what :func:`pack_state` made.

    Returns
    -------
    values : dict
    arrays : dict of str to ndarray
        Writable, with memory of their own.

    Raises
    ------
    CheckpointError
        On anything that is not exactly right.
    """
    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"damaged state: {error}") from None
    if not (text := header.get(_METADATA, {}).get(_STATE)):
        raise CheckpointError("not a packed state of a known version")
    try:
        state = json.loads(text)
        values, names = dict(state["values"]), list(state["arrays"])
        ordered = {name: arrays.pop(name) for name in names}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"damaged state: {error}") from None
    if arrays:
        raise CheckpointError(f"damaged state: arrays {sorted(arrays)} are not listed")
    return values, ordered


def below(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Return what stands under names that begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in named.items()
        if name.startswith(prefix)
    }


def _little(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.char not in _CODES or name == _METADATA:
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
