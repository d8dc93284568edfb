"""Arrays that travel exactly: their bytes, and how a server combines them.

The receiver knows the model's :class:`~fl_opt.params.ParamSpec`, so a frame holds nothing but
the little-endian bytes of the arrays, in order, compressed with Zstandard where that helps.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from fl_opt.errors import CodecError, PayloadError
from fl_opt.params import ArraySpec, NamedArrays, ParamSpec
from fl_opt.wire import FrameKind, Reader, Writer

_PLAIN: Final = 0
_ZSTD: Final = 1
_MAX_BYTES: Final = 1 << 34


def encode_exact(spec: ParamSpec, named: NamedArrays) -> bytes:
    """Encode the exact arrays of a model as one frame.

    Raises
    ------
    CodecError
        If a floating-point one holds NaN or infinity.
    """
    parts = []
    for array in spec.exact_arrays:
        values = np.ascontiguousarray(named[array.name], dtype=_little(array))
        _check_finite(array, values, CodecError)
        parts.append(values.tobytes())
    plain = b"".join(parts)
    packed = zstandard.ZstdCompressor(level=3).compress(plain)
    writer = Writer()
    use_zstd = len(packed) < len(plain)
    writer.byte(_ZSTD if use_zstd else _PLAIN)
    writer.raw(packed if use_zstd else plain)
    return writer.to_frame(FrameKind.EXACT)


def read_exact(reader: Reader, spec: ParamSpec) -> dict[str, NDArray[Any]]:
    """Read the body of an exact frame: the spec's exact arrays, possibly read-only.

    Raises
    ------
    PayloadError
        If there are too few or too many bytes, or a value is NaN or infinite.
    """
    expected = sum(array.size * _little(array).itemsize for array in spec.exact_arrays)
    method = reader.byte()
    data: bytes | memoryview = reader.raw(reader.left)
    if method == _ZSTD:
        data = _decompress(bytes(data), expected)
    elif method != _PLAIN:
        raise PayloadError(f"malformed payload: unknown compression {method} of exact arrays")
    if len(data) != expected:
        raise PayloadError(f"exact arrays hold {len(data)} bytes, expected {expected}")
    named: dict[str, NDArray[Any]] = {}
    start = 0
    for array in spec.exact_arrays:
        little = _little(array)
        values = np.frombuffer(data, little, array.size, start).reshape(array.shape)
        _check_finite(array, values, PayloadError)
        named[array.name] = values
        start += array.size * little.itemsize
    return named


class ExactMean:
    """Combines the exact arrays of many clients, one client at a time.

    Floating-point arrays (running statistics) become their mean weighted by the number of
    examples; integers and bools (counters, flags) their maximum.
    """

    def __init__(self, spec: ParamSpec) -> None:
        self._spec = spec
        self._combined: dict[str, NDArray[Any]] = {}
        self._weight = 0.0

    def add(self, named: NamedArrays, weight: float) -> None:
        """Take in one client's arrays."""
        for array in self._spec.exact_arrays:
            values = named[array.name]
            if array.dtype.startswith("float"):
                values = values * np.float64(weight)
                combine: Any = np.add
            else:
                combine = np.maximum
            before = self._combined.get(array.name)
            self._combined[array.name] = values if before is None else combine(before, values)
        self._weight += weight

    def result(self) -> dict[str, NDArray[Any]]:
        """Return the combined arrays, with the dtypes of the spec."""
        named = {}
        for array in self._spec.exact_arrays:
            combined = self._combined[array.name]
            if array.dtype.startswith("float"):
                combined = combined / self._weight
            named[array.name] = np.asarray(combined, array.dtype)
        return named


def _decompress(data: bytes, expected: int) -> bytes:
    # The size that the data claims is compared first: a small payload must not grow large.
    try:
        claimed = zstandard.frame_content_size(data)
        if claimed != expected or expected > _MAX_BYTES:
            raise PayloadError(f"exact arrays hold {claimed} bytes, expected {expected}")
        return zstandard.ZstdDecompressor().decompress(
            data, max_output_size=expected, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise PayloadError(f"malformed payload: {error}") from None


def _check_finite(
    array: ArraySpec, values: NDArray[Any], kind: type[CodecError | PayloadError]
) -> None:
    if array.dtype.startswith("float") and not np.isfinite(values).all():
        raise kind(
            f"array {array.name!r} holds NaN or infinity; only finite numbers can be sent"
        )


def _little(array: ArraySpec) -> np.dtype[Any]:
    return np.dtype(array.dtype).newbyteorder("<")
