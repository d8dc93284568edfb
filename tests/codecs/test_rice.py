"""The Rice coder: within 1% of the entropy, right beyond 2**24, and distrustful."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.codecs import SparseUpdate, build_codec, code, decode, rice
from fl_opt.codecs.code import PositionMethod
from fl_opt.errors import PayloadError
from fl_opt.wire import FrameKind, Reader, Writer, read_frame


def body(writer: Writer) -> Reader:
    return read_frame(writer.to_frame(FrameKind.UPDATE), FrameKind.UPDATE)


@settings(max_examples=200, deadline=None)
@given(gaps=st.lists(st.integers(0, 2**34), min_size=1, max_size=60))
def test_read_undoes_write_and_cost_is_exact(gaps: list[int]) -> None:
    array = np.array(gaps, np.int64)
    writer = Writer()
    rice.write(writer, array)
    reader = body(writer)
    assert reader.left == rice.cost(array)
    size = int(array.sum()) + array.size
    assert rice.read(reader, array.size, size).tolist() == gaps
    reader.finish()


@pytest.mark.parametrize(
    ("density", "overhead"),
    [(0.1, 1.02), (0.02, 1.01), (0.01, 1.01), (0.0025, 1.01), (0.001, 1.01)],
)
def test_random_positions_cost_little_more_than_their_entropy(
    density: float, overhead: float
) -> None:
    generator = np.random.default_rng(3)
    positions = np.flatnonzero(generator.random(4_000_000) < density)
    gaps = np.diff(positions, prepend=-1) - 1
    p = positions.size / 4_000_000
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * 4_000_000 / 8
    assert rice.cost(gaps) <= overhead * entropy


@pytest.mark.parametrize("method", code.Auto.position_methods)
def test_positions_beyond_2_to_the_24_and_the_last_one_are_exact(
    method: PositionMethod,
) -> None:
    size = (1 << 24) + 5_000_000
    positions = np.array([0, 1, 1 << 24, (1 << 24) + 1, size - 1], np.int64)
    writer = Writer()
    code.write_positions(writer, positions, size, (method,))
    reader = body(writer)
    found = code.read_positions(reader, reader.byte(), size)
    assert found.tolist() == positions.tolist()
    reader.finish()


def test_more_than_2_to_the_24_kept_positions() -> None:
    vector = np.ones((1 << 24) + 9, np.float32)
    update = decode(build_codec("topk(1) | ternary").encode(vector), size=vector.size)
    assert isinstance(update, SparseUpdate)
    assert update.count == vector.size
    assert update.positions[-1] == vector.size - 1


@pytest.mark.parametrize(
    "positions",
    [[3, 3], [5, 2], [0, 100], [-1, 5]],
    ids=["twice", "falling", "beyond", "negative"],
)
def test_positions_that_do_not_increase_in_range_are_refused(positions: list[int]) -> None:
    writer = Writer()
    writer.varint(2)
    writer.array(np.array(positions).astype(np.uint32))
    with pytest.raises(PayloadError, match="do not increase"):
        code.read_positions(body(writer), PositionMethod.RAW, 100)


def test_unary_stream_that_overflows_is_refused() -> None:
    writer = Writer()
    writer.varint(2)  # count
    writer.byte(40)  # parameter
    writer.varint(1 << 40)  # bits of the unary stream
    with pytest.raises(PayloadError, match="beyond the model"):
        code.read_positions(body(writer), PositionMethod.RICE, 1 << 40)
