"""What a payload holds, section by section, without decoding it into a vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fl_opt.codecs import code
from fl_opt.codecs.code import CodeMethod, PositionMethod
from fl_opt.codecs.decode import Nesting
from fl_opt.codecs.draw import Draw
from fl_opt.codecs.lowrank import LOW_RANK_METHOD, Parts
from fl_opt.codecs.registry import LEVELS
from fl_opt.codecs.rules import RULES_METHOD, read_ranges
from fl_opt.errors import PayloadError
from fl_opt.wire import MAX_SIZE, FrameKind, Reader, split_frames

_MAX_GROUPS = 1 << 10
T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """Some bytes of a payload, and what they say."""

    name: str
    num_bytes: int
    content: str


def inspect_payload(blob: bytes) -> list[Section]:
    """Explain a payload, or a blob of several frames.

    Parameters
    ----------
    blob : bytes

    Returns
    -------
    list of Section
        Their lengths add up to that of the blob.

    Raises
    ------
    PayloadError
        If it is not a valid payload.
    """
    sections: list[Section] = []
    for kind, body in split_frames(blob):
        inside = list(_exact(body) if kind is FrameKind.EXACT else _whole_update(Reader(body)))
        header = _header_bytes(len(body))
        sections.append(
            Section("frame", header, f"format 1, {kind.name.lower()}, checksum fits")
        )
        sections += inside
    return sections


def _header_bytes(body: int) -> int:
    """Return the length of the header of a frame: nine bytes, and the varint of the length."""
    return 9 + max(1, -(-body.bit_length() // 7))


def _exact(body: memoryview) -> Iterator[Section]:
    method = {0: "plain", 1: "Zstandard"}.get(body[0] if body else -1, "unknown method")
    yield Section("exact arrays", len(body), method)


def _whole_update(reader: Reader) -> Iterator[Section]:
    yield from _update(reader, Nesting.OUTERMOST)
    reader.finish()


def _measured(reader: Reader, read: Callable[[], T]) -> tuple[T, int]:
    """Return what a call reads, and the number of bytes that it took."""
    before = reader.left
    return read(), before - reader.left


def _update(reader: Reader, nesting: Nesting, indent: str = "") -> Iterator[Section]:
    size, used = _measured(reader, lambda: reader.varint(MAX_SIZE))
    yield Section(f"{indent}size", used, f"{size:,} entries")
    method = reader.byte()
    if method == RULES_METHOD and nesting < Nesting.IN_RULES:
        yield from _groups(reader, size, indent)
        return
    if method == LOW_RANK_METHOD and nesting < Nesting.IN_LOW_RANK:
        parts, used = _measured(reader, lambda: Parts.read(reader, size))
        matrices = [f"{p.rows}x{p.columns} at rank {p.rank}" for p in parts.parts if p.rank]
        yield Section(f"{indent}low rank", used + 1, ", ".join(matrices) or "no matrices")
        yield from _update(reader, Nesting.IN_LOW_RANK, indent + "  ")
        return
    count = size
    if method == PositionMethod.SEED:
        draw, used = _measured(reader, lambda: Draw.read(reader, size))
        count = draw.count
        yield Section(f"{indent}positions", used + 1, f"{count:,} drawn from seed {draw.seed}")
    elif method != PositionMethod.ALL:
        found, used = _measured(
            reader, lambda: code.read_positions(reader, method, size, followed=True)
        )
        count = found.size
        name = PositionMethod(method).name.lower()
        each = f", {8 * used / count:.2f} bits each" if count else ""
        yield Section(f"{indent}positions", used + 1, f"{count:,} by {name}{each}")
    else:
        yield Section(f"{indent}positions", 1, "all")
    yield from _values(reader, count, indent)


def _values(reader: Reader, count: int, indent: str) -> Iterator[Section]:
    wire_id = reader.byte()
    if wire_id not in LEVELS:
        raise PayloadError(f"malformed payload: unknown quantization {wire_id}")
    levels, used = _measured(reader, lambda: LEVELS[wire_id].read(reader, count))
    described = f"{type(levels).__name__}, {levels.width} bits a code"
    yield Section(f"{indent}levels", used + 1, described)
    number = levels.num_codes(count)
    method = reader.peek()
    codes, used = _measured(reader, lambda: code.read_codes(reader, number, levels.width))
    name = CodeMethod(method).name.lower()
    distinct = f", {np.unique(codes).size:,} different" if levels.width <= 16 and number else ""
    each = f", {8 * used / number:.2f} bits each" if number else ""
    yield Section(f"{indent}codes", used, f"{number:,} by {name}{each}{distinct}")


def _groups(reader: Reader, size: int, indent: str) -> Iterator[Section]:
    groups, used = _measured(reader, lambda: reader.varint(_MAX_GROUPS))
    yield Section(f"{indent}rules", used + 1, f"{groups} groups of arrays")
    for _ in range(groups):
        ranges, used = _measured(reader, lambda: read_ranges(reader, size))
        entries = sum(stop - start for start, stop in ranges)
        yield Section(f"{indent}group", used, f"{entries:,} entries in {len(ranges)} ranges")
        yield from _update(reader, Nesting.IN_RULES, indent + "  ")
