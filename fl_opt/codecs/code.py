"""Third stage: how positions and codes become bytes.

Each method has a number in the payload; which one was used is written beside the data, so
that a reader needs to know nothing about the writer. A coder is a policy: it names the methods
that may be used, and the one with the fewest bytes is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, Protocol

import numpy as np

from fl_opt.codecs import entropy, rice
from fl_opt.codecs.bits import Unsigned, pack, packed_size, unpack
from fl_opt.codecs.update import Positions
from fl_opt.errors import PayloadError
from fl_opt.wire import Reader, Writer

_WORTH: Final = 0.998
_WIDE_WORTH: Final = 0.5
_LEAST_SAVING: Final = 8
"""What the entropy code must bring bytes down to, and how many of them it must save."""
_SAMPLE: Final = 1 << 14


class PositionMethod(IntEnum):
    """How the positions of a sparse update are written."""

    ALL = 0
    RAW = 1
    PACK = 2
    RICE = 3
    BITMAP = 4
    SEED = 5
    """Drawn from a seed by both ends, see :mod:`fl_opt.codecs.draw`."""
    ENTROPY = 6


_LISTED: Final = frozenset(PositionMethod) - {PositionMethod.ALL, PositionMethod.SEED}
"""Methods by which positions are in the payload."""


class CodeMethod(IntEnum):
    """How quantized codes are written."""

    RAW = 0
    PACK = 1
    ENTROPY = 2


class Coder(Protocol):
    """The methods a payload may use."""

    name: ClassVar[str]
    position_methods: ClassVar[tuple[PositionMethod, ...]]
    code_methods: ClassVar[tuple[CodeMethod, ...]]


@dataclass(frozen=True)
class Auto:
    """The cheapest method for positions and for codes, payload by payload.

    The entropy code takes more time than the others and is used only where it saves at least
    eight bytes and 0.2% of the positions or signs, or half of codes of more bits.
    """

    name: ClassVar[str] = "auto"
    position_methods: ClassVar[tuple[PositionMethod, ...]] = (
        PositionMethod.RAW,
        PositionMethod.PACK,
        PositionMethod.RICE,
        PositionMethod.BITMAP,
        PositionMethod.ENTROPY,
    )
    code_methods: ClassVar[tuple[CodeMethod, ...]] = tuple(CodeMethod)


@dataclass(frozen=True)
class Raw:
    """Whole bytes: positions as 32-bit (or 64-bit) numbers, codes in 8, 16 or 32 bits."""

    name: ClassVar[str] = "raw"
    position_methods: ClassVar[tuple[PositionMethod, ...]] = (PositionMethod.RAW,)
    code_methods: ClassVar[tuple[CodeMethod, ...]] = (CodeMethod.RAW,)


@dataclass(frozen=True)
class Pack:
    """Bit packing: gaps between positions in as many bits as the largest needs, or a bitmap."""

    name: ClassVar[str] = "pack"
    position_methods: ClassVar[tuple[PositionMethod, ...]] = (
        PositionMethod.PACK,
        PositionMethod.BITMAP,
    )
    code_methods: ClassVar[tuple[CodeMethod, ...]] = (CodeMethod.PACK,)


@dataclass(frozen=True)
class Rice:
    """Gaps between positions in a Golomb-Rice code, near their entropy; codes bit-packed."""

    name: ClassVar[str] = "rice"
    position_methods: ClassVar[tuple[PositionMethod, ...]] = (PositionMethod.RICE,)
    code_methods: ClassVar[tuple[CodeMethod, ...]] = (CodeMethod.PACK,)


@dataclass(frozen=True)
class Entropy:
    """The entropy code of :mod:`fl_opt.codecs.entropy`; codes of over 16 bits are packed."""

    name: ClassVar[str] = "entropy"
    position_methods: ClassVar[tuple[PositionMethod, ...]] = (PositionMethod.ENTROPY,)
    code_methods: ClassVar[tuple[CodeMethod, ...]] = (CodeMethod.ENTROPY,)


def write_positions(
    writer: Writer, positions: Positions, size: int, methods: tuple[PositionMethod, ...]
) -> None:
    """Append count and positions of a sparse update, by the cheapest of the methods."""
    gaps = np.diff(positions, prepend=-1) - 1
    method, coded = _position_method(gaps, size, methods)
    writer.byte(method)
    writer.varint(positions.size)
    if not positions.size:
        return
    if method is PositionMethod.ENTROPY:
        writer.raw(coded)
    elif method is PositionMethod.RAW:
        writer.array(positions.astype(_position_dtype(size)))
    elif method is PositionMethod.PACK:
        width = int(gaps.max()).bit_length()
        writer.byte(width)
        writer.raw(pack(gaps.astype(np.uint64), width))
    elif method is PositionMethod.RICE:
        rice.write(writer, gaps)
    else:
        mask = np.zeros(size, np.bool_)
        mask[positions] = True
        writer.raw(np.packbits(mask, bitorder="little").tobytes())


def read_positions(
    reader: Reader, method: int, size: int, *, followed: bool = False
) -> Positions:
    """Read what :func:`write_positions` wrote behind the method's number.

    Parameters
    ----------
    reader : Reader
    method : int
    size : int
        Entries of the vector.
    followed : bool
        Whether a code for each position must come behind them, which limits how many there are.

    Raises
    ------
    PayloadError
        Unless the positions are strictly increasing and below ``size``, by a known method.
    """
    if method not in _LISTED:
        raise PayloadError(f"malformed payload: unknown method {method} for positions")
    count = reader.varint(min(size, reader.left * entropy.CODES_A_BYTE) if followed else size)
    if count == 0:
        return np.empty(0, np.int64)
    if method == PositionMethod.RAW:
        positions = reader.array(_position_dtype(size), count).astype(np.int64)
    elif method == PositionMethod.PACK:
        width = reader.byte()
        if width > size.bit_length():
            raise PayloadError(f"malformed payload: gaps of {width} bits in {size} entries")
        positions = _from_gaps(unpack(reader, count, width).astype(np.int64))
    elif method == PositionMethod.RICE:
        positions = _from_gaps(rice.read(reader, count, size))
    elif method == PositionMethod.ENTROPY:
        positions = _from_gaps(entropy.read_positions(reader, count, size))
    else:
        mask = unpack(reader, size, 1)
        positions = np.flatnonzero(mask.view(np.bool_))
        if positions.size != count:
            raise PayloadError(f"malformed payload: {positions.size} positions, not {count}")
    # A sum of gaps that left the range of int64 shows as a step down.
    if positions[0] < 0 or positions[-1] >= size or (np.diff(positions) <= 0).any():
        raise PayloadError(
            f"malformed payload: positions do not increase within {size} entries"
        )
    return positions


def write_codes(
    writer: Writer, codes: Unsigned, width: int, methods: tuple[CodeMethod, ...]
) -> None:
    """Append codes of ``width`` bits by the cheapest of the methods."""
    method, coded = _code_method(codes, width, methods)
    writer.byte(method)
    if method is CodeMethod.ENTROPY:
        writer.raw(coded)
    elif method is CodeMethod.RAW:
        writer.array(codes.astype(_code_dtype(width), copy=False))
    else:
        writer.raw(pack(codes, width))


def read_codes(reader: Reader, count: int, width: int) -> Unsigned:
    """Read what :func:`write_codes` wrote: unsigned integers, shape ``(count,)``."""
    method = reader.byte()
    if method == CodeMethod.RAW:
        codes: Unsigned = reader.array(_code_dtype(width), count)  # type: ignore[assignment]
        if width % 8 and codes.size and codes.max() >> width:
            raise PayloadError(f"malformed payload: a code of more than {width} bits")
        return codes
    if method == CodeMethod.PACK:
        return unpack(reader, count, width)
    if method == CodeMethod.ENTROPY:
        return entropy.read_codes(reader, count, width)
    raise PayloadError(f"malformed payload: unknown method {method} for codes")


def _position_method(
    gaps: Positions, size: int, methods: tuple[PositionMethod, ...]
) -> tuple[PositionMethod, bytes]:
    """Choose a method; for the entropy code also return what it gives."""
    others = [method for method in methods if method is not PositionMethod.ENTROPY]
    if not gaps.size:
        return methods[0], b""
    if not others:
        return PositionMethod.ENTROPY, entropy.encode_positions(gaps)
    costs = {method: _position_cost(method, gaps, size) for method in others}
    best = min(costs, key=costs.__getitem__)
    if len(others) < len(methods):
        coded = entropy.encode_positions(gaps, _budget(costs[best], _WORTH))
        if coded:
            return PositionMethod.ENTROPY, coded
    return best, b""


def _code_method(
    codes: Unsigned, width: int, methods: tuple[CodeMethod, ...]
) -> tuple[CodeMethod, bytes]:
    """Choose a method; for the entropy code also return what it gives."""
    others = [method for method in methods if method is not CodeMethod.ENTROPY]
    able = len(others) < len(methods) and width <= entropy.MAX_WIDTH
    if able and not others:
        return CodeMethod.ENTROPY, entropy.encode_codes(codes, width)
    best = min(
        others or [CodeMethod.PACK], key=lambda method: _code_cost(method, codes.size, width)
    )
    share = _WORTH if width == 1 else _WIDE_WORTH

    def attempt(part: Unsigned) -> bytes:
        coded = entropy.encode_codes(part, width)
        fits = len(coded) <= _budget(_code_cost(best, part.size, width), share)
        return coded if fits else b""

    middle = codes[max(0, codes.size - _SAMPLE) // 2 :][:_SAMPLE]
    coded = attempt(codes) if able and (width == 1 or attempt(middle)) else b""
    return (CodeMethod.ENTROPY, coded) if coded else (best, b"")


def _budget(num_bytes: int, share: float) -> float:
    """Return the bytes that the entropy code may take in place of so many."""
    return min(share * num_bytes, num_bytes - _LEAST_SAVING)


def _position_cost(method: PositionMethod, gaps: Positions, size: int) -> int:
    if not gaps.size:
        return 0
    if method is PositionMethod.RAW:
        return gaps.size * _position_dtype(size).itemsize
    if method is PositionMethod.PACK:
        return 1 + packed_size(gaps.size, int(gaps.max()).bit_length())
    if method is PositionMethod.RICE:
        return rice.cost(gaps)
    return packed_size(size, 1)


def _code_cost(method: CodeMethod, count: int, width: int) -> int:
    if method is CodeMethod.RAW:
        return count * _code_dtype(width).itemsize
    return packed_size(count, width)


def _position_dtype(size: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype(np.uint32 if size <= 1 << 32 else np.uint64)


def _code_dtype(width: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype(np.uint8 if width <= 8 else np.uint16 if width <= 16 else np.uint32)


def _from_gaps(gaps: Positions) -> Positions:
    gaps += 1
    np.cumsum(gaps, out=gaps)
    gaps -= 1
    return gaps
