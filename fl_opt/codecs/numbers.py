"""An entropy code for natural numbers of any distribution, vectorised.

Numbers are put into *classes*, and the class of each is found by a binary tree of
comparisons, the best one for the numbers at hand (an optimal alphabetic tree: Gilbert and
Moore 1959). The outcomes of the comparisons, one bit each, are what is sent; what a class
leaves open follows in plain bits.

With resolution ``r`` the class of ``g`` is the exponent of ``v = g + 2**r`` together with the
``r`` bits that follow its leading one. For ``r = 0`` that is the length of ``g + 1`` in binary,
as in Elias' gamma code: few classes, and little to send about the tree, for numbers that spread
over orders of magnitude. Larger ``r`` follow a smooth distribution more closely.

Bits are not kept number by number but node by node, depth first: all outcomes of the
first comparison, then everything about the numbers below its threshold, then everything
about the others. Each step works on whole arrays, so that coding takes some nanoseconds
a number, where a Huffman decoder in Python would take a microsecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.bitstream import BitReader, BitWriter, Integers
from fl_opt.codecs.levels import chunks_of
from fl_opt.errors import PayloadError

_RESOLUTIONS: Final = 3
_RESOLUTION_BITS: Final = 2
_MAX_DEPTH: Final = 200
"""There are fewer classes than this for numbers below ``2**42``."""
_SAMPLE: Final = 1 << 14
_WORTH: Final = 0.995
_WORTH_OF_FEW: Final = 0.999
"""A higher resolution must bring the bits down to this share."""
_MANTISSA_BITS: Final = 52
_EXPONENT_BIAS: Final = 1023


@dataclass(frozen=True)
class _Class:
    """A leaf: numbers from ``start`` on, told apart by ``width`` plain bits."""

    start: int
    width: int


@dataclass(frozen=True)
class _Split:
    """An inner node: the numbers below a threshold, and the others."""

    threshold: int
    below: _Node
    above: _Node


_Node = _Class | _Split


@dataclass(frozen=True)
class Plan:
    """How numbers are going to be written, and what it takes.

    Attributes
    ----------
    resolution : int
    tree : _Node
    num_bits : int
        Exact.
    """

    resolution: int
    tree: _Node
    num_bits: int


def estimate(values: Integers) -> tuple[int, float]:
    """Choose a resolution for non-negative numbers, at least one, and estimate their bits.

    Both on a sample. More classes take more time: where there are many numbers they must be
    worth it.
    """
    sample = values[:: values.size // _SAMPLE + 1]
    worth = _WORTH if sample.size < values.size else _WORTH_OF_FEW
    best = 0, _estimate(sample, 0, values.size)
    for resolution in range(1, _RESOLUTIONS):
        bits = _estimate(sample, resolution, values.size)
        if bits > worth * best[1]:
            break
        best = resolution, bits
    return best


def plan(values: Integers, resolution: int | None = None) -> Plan:
    """Find the tree for non-negative numbers, at least one, and the resolution if not given."""
    if resolution is None:
        resolution, _ = estimate(values)
    weights = _histogram(values, resolution)
    splits, steps = _best_tree(weights)
    return Plan(
        resolution,
        _build(splits, resolution, 0, weights.size),
        steps + _plain_bits(weights, resolution) + _RESOLUTION_BITS + 2 * weights.size - 1,
    )


def write(stream: BitWriter, values: Integers, plan: Plan) -> None:
    """Append numbers as their plan says."""
    stream.number(plan.resolution, _RESOLUTION_BITS)
    stream.bits(np.array(_shape(plan.tree), np.uint8))
    _write_node(stream, values + values.dtype.type(1 << plan.resolution), plan.tree)


def read(stream: BitReader, count: int, limit: int) -> Integers:
    """Read ``count`` numbers.

    They may exceed ``limit``, but by less than a factor of two.

    Raises
    ------
    PayloadError
        If the tree has classes above ``limit``, or bits are missing. Every number takes at
        least one bit.
    """
    resolution = stream.number(_RESOLUTION_BITS)
    if resolution >= _RESOLUTIONS:
        raise PayloadError(f"malformed payload: resolution {resolution} of a code")
    tree = _TreeReader(stream, resolution, limit).node(_MAX_DEPTH)
    if isinstance(tree, _Class):
        raise PayloadError("malformed payload: a code without bits")
    small = limit < np.iinfo(np.int32).max >> 2
    values = _read_node(stream, count, tree, np.dtype(np.int32 if small else np.int64))
    values -= values.dtype.type(1 << resolution)
    return values


def _histogram(values: Integers, resolution: int) -> NDArray[np.int64]:
    """Count the numbers in each class, up to the last that is needed; at least two."""
    weights = np.zeros(int(_classes(values.max(keepdims=True), resolution)[0]) + 1, np.int64)
    for part in chunks_of(values.size, 1):
        weights += np.bincount(_classes(values[part], resolution), minlength=weights.size)
    return weights if weights.size > 1 else np.append(weights, 0)


def _classes(values: Integers, resolution: int) -> NDArray[np.int64]:
    # The exponent and upper mantissa bits of a double are, read together, the class.
    patterns = (values + np.float64(1 << resolution)).view(np.int64)
    patterns >>= _MANTISSA_BITS - resolution
    patterns -= (_EXPONENT_BIAS + resolution) << resolution
    return patterns


def _estimate(sample: Integers, resolution: int, count: int) -> float:
    """Estimate the bits for ``count`` numbers from a sample of them."""
    weights = _histogram(sample, resolution)
    _, steps = _best_tree(weights)
    return (steps + _plain_bits(weights, resolution)) * count / sample.size + 2 * weights.size


def _plain_bits(weights: NDArray[np.int64], resolution: int) -> int:
    """Sum up the widths of the classes of all numbers."""
    return int(weights @ (np.arange(weights.size) >> resolution))


def _best_tree(weights: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Find the alphabetic tree of least weighted depth.

    Returns the size of the left part of the best split, by length and start of a range of
    classes, and the sum of weight times depth. Dynamic programming over ranges: a range costs
    its own weight, plus what its two parts cost.
    """
    size = weights.size
    totals = np.concatenate([[0], np.cumsum(weights)])
    by_start = np.zeros((size + 1, size + 1), np.int64)  # cost, by length and start or end
    by_end = np.zeros_like(by_start)
    splits = np.zeros_like(by_start)
    for length in range(2, size + 1):
        starts = size - length + 1
        options = by_start[1:length, :starts] + by_end[length - 1 : 0 : -1, length:]
        splits[length, :starts] = options.argmin(axis=0) + 1
        cost = options.min(axis=0) + totals[length:] - totals[:starts]
        by_start[length, :starts] = cost
        by_end[length, length:] = cost
    return splits, int(by_start[size, 0])


def _build(splits: NDArray[np.int64], resolution: int, start: int, length: int) -> _Node:
    if length == 1:
        return _class(start, resolution)
    left = int(splits[length, start])
    return _Split(
        _class(start + left, resolution).start,
        _build(splits, resolution, start, left),
        _build(splits, resolution, start + left, length - left),
    )


def _class(index: int, resolution: int) -> _Class:
    width = index >> resolution
    leading = (1 << resolution) + index - (width << resolution)
    return _Class(leading << width, width)


def _shape(node: _Node) -> list[int]:
    """Depth first, a one for each inner node and a zero for each leaf."""
    if isinstance(node, _Class):
        return [0]
    return [1, *_shape(node.below), *_shape(node.above)]


class _TreeReader:
    """Rebuilds a tree from its shape: the leaves are the classes in order."""

    def __init__(self, stream: BitReader, resolution: int, limit: int) -> None:
        self._stream = stream
        self._resolution = resolution
        self._limit = limit + (1 << resolution)
        self._next = 0

    def node(self, levels: int) -> _Node:
        if self._stream.bits(1)[0]:
            if levels == 0:
                raise PayloadError("malformed payload: the tree of a code is too deep")
            below = self.node(levels - 1)
            threshold = _class(self._next, self._resolution).start
            return _Split(threshold, below, self.node(levels - 1))
        leaf = _class(self._next, self._resolution)
        if leaf.start > self._limit and self._next > 1:
            raise PayloadError("malformed payload: a code for numbers beyond what is possible")
        self._next += 1
        return leaf


def _write_node(stream: BitWriter, values: Integers, node: _Node) -> None:
    if isinstance(node, _Class):
        stream.planes(values, node.width)
    elif values.size:
        above = values >= node.threshold
        stream.bits(above)
        # Indexing by places is several times as fast as by flags that follow no pattern.
        _write_node(stream, values.take(np.flatnonzero(~above)), node.below)
        _write_node(stream, values.take(np.flatnonzero(above)), node.above)


def _read_node(
    stream: BitReader, count: int, node: _Node, dtype: np.dtype[np.signedinteger[Any]]
) -> Integers:
    if isinstance(node, _Class):
        values = stream.planes(count, node.width, dtype)
        values |= dtype.type(node.start)
        return values
    above = stream.bits(count).view(np.bool_)  # before memory is taken for the numbers
    values = np.empty(count, dtype)
    if count:
        for side, flags in ((node.below, ~above), (node.above, above)):
            places = np.flatnonzero(flags)
            values[places] = _read_node(stream, places.size, side, dtype)
    return values
