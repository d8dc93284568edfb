"""Entropy coding of positions and codes: everything is a set of places.

Positions are coded by the gaps between them, with :mod:`~fl_opt.codecs.numbers`. Where rows
or layers differ in density, gaps spread over orders of magnitude, and a code that follows
their distribution beats the entropy of as many random positions by far.

Codes are numbers around a zero, ``2**(width - 1) - 1``: the places that are not zero are a set,
those whose sign is not that of the one before are a set within it, and so are those whose
magnitude is above 1, above 2 and so on; the rest of the magnitudes are coded as numbers
as soon as that is cheaper. Large values and equal signs come in clusters too, and sets find
them. One-bit codes (signs) are the set of their changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs import numbers
from fl_opt.codecs.bits import Unsigned
from fl_opt.codecs.bitstream import BitReader, BitWriter, Integers
from fl_opt.codecs.update import Positions
from fl_opt.errors import PayloadError
from fl_opt.wire import Reader

MAX_WIDTH: Final = 16
"""Widest codes that are coded."""

_METHOD_BITS: Final = 3
_CLEARLY: Final = 1.02
"""An estimate above this share of what there is to beat settles it."""
_MAX_STEPS: Final = 16
"""Most magnitudes that are sets, one inside the other."""
CODES_A_BYTE: Final = 1 << 15
"""Most codes for each byte of a stream: what a small payload can ask for is bounded."""

Flags = NDArray[np.bool_]


class _Set(IntEnum):
    """How a set is written."""

    EMPTY = 0
    FULL = 1
    BITMAP = 2
    GAPS = 3
    GAPS_OF_OTHERS = 4
    NUMBERS = 5
    """No set: all that is left are numbers."""


def encode_positions(gaps: Positions, budget: float = math.inf) -> bytes:
    """Code the gaps of a sparse update: non-negative int64, at least one.

    Returns nothing if that takes more than ``budget`` bytes, soon if it takes clearly more.
    """
    narrow = _narrow(gaps)
    resolution, num_bits = numbers.estimate(narrow)
    if num_bits > _CLEARLY * 8 * budget:
        return b""
    plan = numbers.plan(narrow, resolution)
    if plan.num_bits > 8 * budget:
        return b""
    stream = BitWriter()
    numbers.write(stream, narrow, plan)
    return stream.to_bytes()


def read_positions(reader: Reader, count: int, size: int) -> Positions:
    """Read ``count`` gaps of positions below ``size``; their sum is not checked."""
    stream = BitReader(reader)
    gaps = numbers.read(stream, count, size)
    stream.finish()
    return gaps.astype(np.int64, copy=False)


def encode_codes(codes: Unsigned, width: int) -> bytes:
    """Code unsigned integers of at most 16 bits."""
    stream = BitWriter()
    if width == 1:
        _write_set(stream, _changes(codes.view(np.bool_)))
    else:
        zero = _zero(width)
        sent = codes != zero
        _write_set(stream, sent)
        signed = codes[sent].astype(np.int32) - np.int32(zero)
        _write_set(stream, _changes(signed < 0))
        np.abs(signed, out=signed)
        signed -= 1
        magnitudes = _narrow(signed)
        del signed, sent
        _write_magnitudes(stream, magnitudes)
    coded = stream.to_bytes()
    return coded.ljust(-(-codes.size // CODES_A_BYTE), b"\0")


def read_codes(reader: Reader, count: int, width: int) -> Unsigned:
    """Read what :func:`encode_codes` wrote, the last thing in a payload.

    Returns
    -------
    ndarray of uint8 or uint16, shape (count,)
    """
    if width > MAX_WIDTH:
        raise PayloadError(f"malformed payload: codes of {width} bits in an entropy code")
    shortest = -(-count // CODES_A_BYTE)
    if reader.left < shortest:
        raise PayloadError(f"malformed payload: {count} codes in {reader.left} bytes")
    start = reader.left
    stream = BitReader(reader)
    if width == 1:
        codes: Unsigned = _undo_changes(_read_set(stream, count)).view(np.uint8)
    else:
        zero = _zero(width)
        sent = _read_set(stream, count)
        num_sent = int(np.count_nonzero(sent))
        negative = _undo_changes(_read_set(stream, num_sent))
        values = _read_magnitudes(stream, num_sent, zero) + np.int32(1)
        np.negative(values, out=values, where=negative)
        values += np.int32(zero)
        if values.size and not 0 <= values.min() <= values.max() < 1 << width:
            raise PayloadError(f"malformed payload: a code of more than {width} bits")
        codes = np.full(count, zero, np.uint8 if width <= 8 else np.uint16)
        codes[sent] = values
    stream.finish()
    if any(reader.raw(max(0, shortest - (start - reader.left)))):
        raise PayloadError("malformed payload: padding bytes are not zero")
    return codes


def _zero(width: int) -> int:
    return (1 << (width - 1)) - 1


def _narrow(values: Integers) -> Integers:
    """Save memory and time where numbers are small, as most are."""
    largest = values.max(initial=0)
    # Room for what resolutions add.
    if largest < 1 << 14:
        return values.astype(np.int16)
    return values.astype(np.int32) if largest < 1 << 30 else values


def _changes(flags: Flags) -> Flags:
    """Mark where a flag differs from the one before; before the first is False."""
    changes = flags.copy()
    changes[1:] ^= flags[:-1]
    return changes


def _undo_changes(changes: Flags) -> Flags:
    """Return the parity of the changes so far, 64 places at a time."""
    words = np.zeros(-(-changes.size // 64), "<u8")
    octets = np.packbits(changes, bitorder="little")
    words.view(np.uint8)[: octets.size] = octets
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    # The last bit of a word is its parity: words after an odd number of odd ones flip.
    odd = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.negative(odd[:-1])
    flags = np.unpackbits(words.view(np.uint8), count=changes.size, bitorder="little")
    return flags.view(np.bool_)


@dataclass(frozen=True)
class _SetPlan:
    """How a set is going to be written, and the bits it takes."""

    method: _Set
    num_bits: int
    gaps: Integers | None = None
    code: numbers.Plan | None = None


def _plan_set(flags: Flags) -> _SetPlan:
    count = int(np.count_nonzero(flags))
    if count in (0, flags.size):
        return _SetPlan(_Set.FULL if count else _Set.EMPTY, _METHOD_BITS)
    others = 2 * count > flags.size
    places: Integers = np.flatnonzero(~flags if others else flags)
    if flags.size < 1 << 31:
        places = places.astype(np.int32)
    places[1:] -= places[:-1] + places.dtype.type(1)
    gaps = _narrow(places)
    del places
    resolution, num_bits = numbers.estimate(gaps)
    if num_bits > _CLEARLY * flags.size:
        return _SetPlan(_Set.BITMAP, _METHOD_BITS + flags.size)
    code = numbers.plan(gaps, resolution)
    num_bits = _METHOD_BITS + 2 * gaps.size.bit_length() - 1 + code.num_bits
    if num_bits >= _METHOD_BITS + flags.size:
        return _SetPlan(_Set.BITMAP, _METHOD_BITS + flags.size)
    return _SetPlan(_Set.GAPS_OF_OTHERS if others else _Set.GAPS, num_bits, gaps, code)


def _write_set(stream: BitWriter, flags: Flags, plan: _SetPlan | None = None) -> None:
    plan = plan or _plan_set(flags)
    stream.number(plan.method, _METHOD_BITS)
    if plan.method is _Set.BITMAP:
        stream.bits(flags)
    elif plan.gaps is not None and plan.code is not None:
        stream.count(plan.gaps.size)
        numbers.write(stream, plan.gaps, plan.code)


def _read_set(stream: BitReader, size: int) -> Flags:
    """Read a set of places below ``size`` as flags."""
    return _read_set_body(stream, stream.number(_METHOD_BITS), size)


def _read_set_body(stream: BitReader, method: int, size: int) -> Flags:
    if method in (_Set.EMPTY, _Set.FULL):
        return np.full(size, method == _Set.FULL)
    if method == _Set.BITMAP:
        return stream.bits(size).view(np.bool_)
    if method not in (_Set.GAPS, _Set.GAPS_OF_OTHERS):
        raise PayloadError(f"malformed payload: unknown method {method} for a set")
    gaps = numbers.read(stream, stream.count(size), size).astype(np.int64)
    gaps += 1
    places = np.cumsum(gaps)
    places -= 1
    # A sum that left the range of int64 would show as a step down before anything else does.
    if places[-1] >= size or (gaps.size > 1 and places.min() < 0):
        raise PayloadError(f"malformed payload: a set beyond {size} places")
    flags = np.full(size, method == _Set.GAPS_OF_OTHERS)
    flags[places] = method == _Set.GAPS
    return flags


def _write_magnitudes(stream: BitWriter, magnitudes: Integers) -> None:
    """Append natural numbers, most of them small."""
    if not magnitudes.size:
        return
    whole = numbers.plan(magnitudes)
    for _ in range(_MAX_STEPS):
        above = magnitudes > 0
        step = _plan_set(above)
        rest = magnitudes[above] - magnitudes.dtype.type(1)
        rest_plan = numbers.plan(rest) if rest.size else None
        bits = step.num_bits + (_METHOD_BITS + rest_plan.num_bits if rest_plan else 0)
        if _METHOD_BITS + whole.num_bits <= bits:
            break
        _write_set(stream, above, step)
        if rest_plan is None:
            return
        magnitudes, whole = rest, rest_plan
    stream.number(_Set.NUMBERS, _METHOD_BITS)
    numbers.write(stream, magnitudes, whole)


def _read_magnitudes(stream: BitReader, count: int, limit: int) -> NDArray[np.int32]:
    """Read natural numbers; what exceeds ``limit`` does so by less than a factor of two."""
    magnitudes = np.zeros(count, np.int32)
    if not count:
        return magnitudes
    places: slice | Positions = slice(None)
    for _ in range(_MAX_STEPS + 1):
        method = stream.number(_METHOD_BITS)
        if method == _Set.NUMBERS:
            magnitudes[places] += numbers.read(stream, count, limit)
            return magnitudes
        above = _read_set_body(stream, method, count)
        inside = np.flatnonzero(above)
        if not inside.size:
            return magnitudes
        places = inside if isinstance(places, slice) else places[inside]
        count = inside.size
        magnitudes[places] += 1
    raise PayloadError("malformed payload: a code with too many steps")
