"""Named arrays to one flat vector and back.

What is trained travels as one float32 vector. What must not be compressed (integer arrays,
and arrays whose names match given patterns, such as the statistics of batch normalisation)
travels beside it, exactly.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import ModelError, PayloadError

NamedArrays = Mapping[str, NDArray[Any]]

MAX_ARRAYS: Final = 100_000
_MAX_DIMENSIONS: Final = 32
_MAX_ENTRIES: Final = 1 << 40
_DTYPES: Final = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


@dataclass(frozen=True)
class ArraySpec:
    """Name, shape and dtype of one array, and whether it travels exactly."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    exact: bool

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ParamSpec:
    """The arrays of a model, in order.

    Build it with :meth:`of`; both ends of an exchange must hold an equal one, which they
    prove with :attr:`fingerprint`.
    """

    arrays: tuple[ArraySpec, ...]

    @classmethod
    def of(cls, named: NamedArrays, exact: Sequence[str] = ()) -> Self:
        """Describe the arrays of a model.

        Parameters
        ----------
        named : mapping of str to ndarray
            Floating-point, integer or bool arrays of any shape, scalars and empty ones
            included.
        exact : sequence of str
            Patterns (as for file names, case-sensitive) of arrays that travel exactly. Arrays
            that are not floating-point always do.

        Raises
        ------
        ModelError
            If an array has a dtype that cannot be sent.
        """
        return cls(tuple(_describe(name, array, exact) for name, array in named.items()))

    @cached_property
    def vector_arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays that make up the vector."""
        return tuple(array for array in self.arrays if not array.exact)

    @cached_property
    def exact_arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays that travel exactly."""
        return tuple(array for array in self.arrays if array.exact)

    @cached_property
    def size(self) -> int:
        """Number of entries of the vector."""
        return sum(array.size for array in self.vector_arrays)

    @cached_property
    def layout(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the arrays that make up the vector."""
        return tuple(array.shape for array in self.vector_arrays)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays that make up the vector."""
        return tuple(array.name for array in self.vector_arrays)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ when names, shapes, dtypes or order do."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def flatten(self, named: NamedArrays) -> NDArray[np.float32]:
        """Return the float32 vector of shape ``(size,)``; always a new array.

        Raises
        ------
        ModelError
            If names or shapes differ from the spec, or a value does not fit float32.
        """
        self._check(named)
        vector = np.empty(self.size, np.float32)
        start = 0
        with np.errstate(over="ignore"):
            for array in self.vector_arrays:
                part = vector[start : start + array.size]
                part[...] = named[array.name].reshape(-1)
                start += array.size
        return vector

    def exact_part(self, named: NamedArrays) -> dict[str, NDArray[Any]]:
        """Return the arrays that travel exactly, without copying them."""
        return {array.name: named[array.name] for array in self.exact_arrays}

    def unflatten(
        self, vector: NDArray[np.float32], exact: NamedArrays | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return the named arrays, in the order and with the dtypes of the spec.

        Float32 arrays are views of ``vector`` and exact ones are those given: copy what will
        be changed while the original is still needed.
        """
        if vector.shape != (self.size,):
            raise ModelError(f"vector has shape {vector.shape}, the model needs ({self.size},)")
        exact = exact or {}
        named: dict[str, NDArray[Any]] = {}
        start = 0
        for array in self.arrays:
            if array.exact:
                if array.name not in exact:
                    raise ModelError(f"exact array {array.name!r} is missing")
                named[array.name] = exact[array.name].reshape(array.shape)
                continue
            part = vector[start : start + array.size].reshape(array.shape)
            named[array.name] = part.astype(array.dtype, copy=False)
            start += array.size
        return named

    def name_at(self, position: int) -> str:
        """Return the name of the array that an entry of the vector belongs to."""
        for array in self.vector_arrays:
            if position < array.size:
                return array.name
            position -= array.size
        raise IndexError(position)

    def to_bytes(self) -> bytes:
        """Serialize as compact JSON."""
        rows = [[a.name, list(a.shape), a.dtype, int(a.exact)] for a in self.arrays]
        return json.dumps(rows, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what :meth:`to_bytes` wrote.

        Raises
        ------
        PayloadError
            On anything that is not exactly right.
        """
        try:
            rows = json.loads(data)
            arrays = tuple(_read_row(row) for row in rows)
        except (ValueError, TypeError, RecursionError) as error:
            raise PayloadError(f"malformed model description: {error}") from None
        spec = cls(arrays)
        if len(arrays) > MAX_ARRAYS or sum(array.size for array in arrays) > _MAX_ENTRIES:
            raise PayloadError("malformed model description: too large")
        if len({array.name for array in arrays}) != len(arrays):
            raise PayloadError("malformed model description: a name stands twice")
        return spec

    def _check(self, named: NamedArrays) -> None:
        for array in self.arrays:
            found = named.get(array.name)
            if found is None:
                raise ModelError(f"array {array.name!r} is missing from the model")
            if found.shape != array.shape:
                raise ModelError(
                    f"array {array.name!r} has shape {found.shape}, expected {array.shape}"
                )
        if len(named) != len(self.arrays):
            extra = next(name for name in named if name not in {a.name for a in self.arrays})
            raise ModelError(f"array {extra!r} is not part of the model")


def name_arrays(arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Name the arrays of a list by their index, as NumPyClients need it."""
    return {str(index): array for index, array in enumerate(arrays)}


def _describe(name: str, array: NDArray[Any], exact: Sequence[str]) -> ArraySpec:
    dtype = array.dtype.name
    if dtype not in _DTYPES:
        raise ModelError(
            f"array {name!r} has dtype {dtype}; floating-point up to float64, integers and "
            "bool can be sent"
        )
    is_exact = array.dtype.kind != "f" or any(fnmatch.fnmatchcase(name, p) for p in exact)
    return ArraySpec(name, array.shape, dtype, is_exact)


def _read_row(row: Any) -> ArraySpec:
    name, shape, dtype, exact = row
    if not isinstance(name, str) or dtype not in _DTYPES or exact not in (0, 1):
        raise ValueError(f"unexpected entry {row!r:.80}")
    if len(shape) > _MAX_DIMENSIONS or not all(
        type(n) is int and 0 <= n <= _MAX_ENTRIES for n in shape
    ):
        raise ValueError(f"unexpected shape {shape!r:.80}")
    if not exact and not dtype.startswith("float"):
        raise ValueError(f"array {name!r:.80} of dtype {dtype} must travel exactly")
    return ArraySpec(name, tuple(shape), dtype, bool(exact))
