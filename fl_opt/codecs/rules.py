"""Different codecs for different arrays of a model.

``"topk(0.01) | ternary; *bias: fp32; size<256: fp32"`` is a codec, followed by rules. Each
array goes to the first rule that its name or size meets, the rest to the codec in front. Arrays
that share a rule form one vector and are encoded together.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fl_opt.codecs.base import BodyEncoder, Codec
from fl_opt.codecs.lowrank import ReducedCodec
from fl_opt.codecs.update import DenseUpdate, Layout, SparseUpdate, Update, Vector
from fl_opt.errors import CodecError, PayloadError
from fl_opt.wire import Reader, Writer

RULES_METHOD: Final = 17
"""Stands where other updates have their position method."""
_MAX_RANGES: Final = 1 << 17
_SPARSE: Final = 4
"""A joined update is kept sparse up to one entry in so many."""
_SIZE: Final = re.compile(r"size\s*(<|<=|>|>=)\s*(\d+)$")


@dataclass(frozen=True)
class Rule:
    """A condition on an array, and the codec of those that meet it.

    Parameters
    ----------
    condition : str
        A pattern for names, as for file names, or ``size<N`` (also ``<=``, ``>``, ``>=``).
    codec : Codec
    """

    condition: str
    codec: Codec | ReducedCodec

    def meets(self, name: str, size: int) -> bool:
        """Say whether an array falls under the rule."""
        match = _SIZE.match(self.condition)
        if match is None:
            return fnmatch.fnmatchcase(name, self.condition)
        bound = int(match[2])
        return {
            "<": size < bound,
            "<=": size <= bound,
            ">": size > bound,
            ">=": size >= bound,
        }[match[1]]


@dataclass(frozen=True)
class RuledCodec(BodyEncoder):
    """A codec for each kind of array.

    Parameters
    ----------
    spec : str
    default : Codec
        Of the arrays that meet no rule.
    rules : tuple of Rule
        The first that an array meets counts.
    """

    spec: str
    default: Codec | ReducedCodec
    rules: tuple[Rule, ...]

    def write(
        self,
        writer: Writer,
        vector: Vector,
        *,
        seed: int,
        layout: Layout,
        names: Sequence[str] | None = None,
    ) -> None:
        """Append each group of arrays, encoded with its own codec.

        Raises
        ------
        CodecError
            As :meth:`Encoder.encode`; positions are those in the whole vector.
        """
        names = names or [""] * len(layout)
        writer.varint(vector.size)
        writer.byte(RULES_METHOD)
        groups = list(self._groups(layout, names))
        writer.varint(len(groups))
        for codec, members, shapes in groups:
            write_ranges(writer, members)
            part = np.concatenate([vector[start:stop] for start, stop in members])
            try:
                codec.write(writer, part, seed=seed, layout=shapes)
            except CodecError as error:
                raise _in_whole(error, members, vector) from None

    def _groups(
        self, layout: Layout, names: Sequence[str]
    ) -> Iterator[tuple[Codec | ReducedCodec, list[tuple[int, int]], Layout]]:
        """Yield codec, ranges within the vector and shapes of each group that has entries."""
        codecs = [rule.codec for rule in self.rules] + [self.default]
        members: list[list[tuple[int, int]]] = [[] for _ in codecs]
        shapes: list[list[tuple[int, ...]]] = [[] for _ in codecs]
        start = 0
        for name, shape in zip(names, layout, strict=True):
            size = math.prod(shape)
            matching = (i for i, rule in enumerate(self.rules) if rule.meets(name, size))
            group = next(matching, len(self.rules))
            if size:
                shapes[group].append(shape)
                _append_range(members[group], start, start + size)
            start += size
        for codec, ranges, own in zip(codecs, members, shapes, strict=True):
            if ranges:
                yield codec, ranges, tuple(own)


def write_ranges(writer: Writer, ranges: Sequence[tuple[int, int]]) -> None:
    """Append the number of ranges, and of each the distance from the last and the length."""
    writer.varint(len(ranges))
    end = 0
    for start, stop in ranges:
        writer.varint(start - end)
        writer.varint(stop - start)
        end = stop


def read_ranges(reader: Reader, size: int) -> list[tuple[int, int]]:
    """Read what :func:`write_ranges` wrote; PayloadError if a range leaves the vector."""
    ranges = []
    end = 0
    for _ in range(reader.varint(_MAX_RANGES)):
        start = end + reader.varint(size)
        end = start + reader.varint(size)
        if end > size or start == end:
            raise PayloadError(
                "malformed payload: a range of arrays is empty or leaves the model"
            )
        ranges.append((start, end))
    return ranges


def join_groups(groups: Sequence[tuple[list[tuple[int, int]], Update]], size: int) -> Update:
    """Put the updates of groups of arrays together: sparse if most entries are zero.

    Raises
    ------
    PayloadError
        Unless the groups cover the vector, each entry once.
    """
    end = 0
    for start, stop in sorted(itertools.chain.from_iterable(ranges for ranges, _ in groups)):
        if start != end:
            raise PayloadError("malformed payload: groups of arrays overlap or leave a gap")
        end = stop
    if end != size:
        raise PayloadError("malformed payload: groups of arrays leave a gap at the end")
    if sum(update.count for _, update in groups) <= size // _SPARSE:
        return _join_sparse(groups, size)
    dense = np.empty(size, np.float32)
    for ranges, update in groups:
        values, taken = update.to_dense(), 0
        for start, stop in ranges:
            dense[start:stop] = values[taken : taken + stop - start]
            taken += stop - start
    return DenseUpdate(dense)


def _join_sparse(
    groups: Sequence[tuple[list[tuple[int, int]], Update]], size: int
) -> SparseUpdate:
    positions, values = [], []
    for ranges, update in groups:
        if isinstance(update, SparseUpdate):
            inside, own = update.positions, update.values
        else:
            inside, own = np.arange(update.size), update.to_dense()
        lengths = np.array([stop - start for start, stop in ranges])
        ends = np.cumsum(lengths)
        shifts = np.array([start for start, _ in ranges]) - (ends - lengths)
        positions.append(inside + shifts[np.searchsorted(ends, inside, side="right")])
        values.append(own)
    whole = np.concatenate(positions)
    order = np.argsort(whole, kind="stable")
    return SparseUpdate(size, whole[order], np.concatenate(values)[order])


def _append_range(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], stop)
    else:
        ranges.append((start, stop))


def _in_whole(error: CodecError, members: list[tuple[int, int]], vector: Vector) -> CodecError:
    """Return the error with its position counted in the whole vector."""
    position = error.position
    if position is None:
        return error
    for start, stop in members:
        if position < stop - start:
            whole = start + position
            return CodecError(
                f"entry {whole} of the update is {vector[whole]}; it must be finite",
                position=whole,
            )
        position -= stop - start
    return error
