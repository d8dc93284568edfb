"""Decoding: a payload of any codec to an update."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from fl_opt.codecs import code
from fl_opt.codecs.code import PositionMethod
from fl_opt.codecs.draw import Draw
from fl_opt.codecs.lowrank import LOW_RANK_METHOD, Parts
from fl_opt.codecs.registry import LEVELS
from fl_opt.codecs.rules import RULES_METHOD, join_groups, read_ranges
from fl_opt.codecs.update import DenseUpdate, SparseUpdate, Update, Vector
from fl_opt.errors import PayloadError
from fl_opt.wire import FrameKind, Reader, read_frame

_MAX_GROUPS: Final = 1 << 10


class Nesting(IntEnum):
    """Where an update stands; rules may hold low-rank updates, and those only plain ones."""

    OUTERMOST = 0
    IN_RULES = 1
    IN_LOW_RANK = 2


def decode(payload: bytes | memoryview, *, size: int) -> Update:
    """Decode a payload made by any codec.

    Parameters
    ----------
    payload : bytes
        One frame.
    size : int
        Number of entries that the update must have; also the limit of what a malformed payload
        can make the decoder allocate.

    Returns
    -------
    Update
        Of exactly ``size`` entries, all finite. It may hold views of the payload.

    Raises
    ------
    PayloadError
        On anything that is not exactly right.
    """
    reader = read_frame(payload, FrameKind.UPDATE)
    update = read_update(reader, size)
    reader.finish()
    return update


def read_update(reader: Reader, size: int, nesting: int = Nesting.OUTERMOST) -> Update:
    """Read the body of an update frame; see :func:`decode`."""
    claimed = reader.varint()
    if claimed != size:
        raise PayloadError(f"payload is of another model: {claimed} entries, expected {size}")
    method = reader.byte()
    if method == RULES_METHOD and nesting < Nesting.IN_RULES:
        return _read_groups(reader, size)
    if method == LOW_RANK_METHOD and nesting < Nesting.IN_LOW_RANK:
        parts = Parts.read(reader, size)
        reduced = read_update(reader, parts.reduced_size, Nesting.IN_LOW_RANK)
        return DenseUpdate(parts.restore(reduced.to_dense()))
    if method == PositionMethod.ALL:
        return DenseUpdate(_read_values(reader, size))
    if method == PositionMethod.SEED:
        draw = Draw.read(reader, size)
        values = _read_values(reader, draw.count)  # first: drawing costs memory, bytes or not
        return SparseUpdate(size, draw.positions(), values)
    positions = code.read_positions(reader, method, size, followed=True)
    return SparseUpdate(size, positions, _read_values(reader, positions.size))


def _read_values(reader: Reader, count: int) -> Vector:
    wire_id = reader.byte()
    if wire_id not in LEVELS:
        raise PayloadError(f"malformed payload: unknown quantization {wire_id}")
    levels = LEVELS[wire_id].read(reader, count)
    codes = code.read_codes(reader, levels.num_codes(count), levels.width)
    return levels.restore(codes)


def _read_groups(reader: Reader, size: int) -> Update:
    """Read the groups of arrays that rules made."""
    groups = []
    for _ in range(reader.varint(_MAX_GROUPS)):
        ranges = read_ranges(reader, size)
        count = sum(stop - start for start, stop in ranges)
        groups.append((ranges, read_update(reader, count, Nesting.IN_RULES)))
    return join_groups(groups, size)
