"""Masks as they travel: what stays, from one to the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.codecs import build_codec
from fl_opt.errors import PayloadError
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.masks import encode_mask
from fl_opt.exchange.moves import alive_after, read_moves
from fl_opt.params import ParamSpec
from fl_opt.wire import FrameKind, Writer

SIZE = 40
SPEC = ParamSpec.of({"weight": np.zeros(SIZE, np.float32)})
masks = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).filter(any)


def covers(chosen: list[bool]) -> Coverage | None:
    return None if all(chosen) else Coverage.of(np.array(chosen))


@given(masks, masks)
def test_any_mask_leads_to_any_other(one: list[bool], other: list[bool]) -> None:
    before, after = covers(one), covers(other)
    frame = encode_mask(before, after, SIZE)
    assert (frame == b"") == (before == after)
    if frame:
        moves, exact = read_moves(frame, SPEC, before)
        assert moves == [after or Coverage.all_of(SIZE)]
        assert not exact
        assert alive_after(frame, SPEC, before) == after


def test_a_mask_takes_the_entropy_of_what_goes_of_the_rest() -> None:
    counts = (20_000, 12_000, 7_000, 4_000)
    order = np.random.default_rng(0).permutation(counts[0])
    alive = [Coverage.at(order[:count], counts[0]) for count in counts]
    for step in range(3):
        frame = encode_mask(alive[step] if step else None, alive[step + 1], counts[0])
        p = counts[step + 1] / counts[step]
        entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * counts[step]
        assert len(frame) < 1.03 * entropy / 8 + 20
    assert len(encode_mask(None, alive[3], counts[0])) < 1.04 * 0.722 * counts[0] / 8


def test_masks_keep_their_bytes() -> None:
    """Golden: they are never changed to please this test."""
    first, second = (Coverage.at(np.array(at), SIZE) for at in ([2, 5, 9], [5, 9]))
    assert encode_mask(None, first, SIZE).hex() == "666c6f013297e5ee030601280203023a"
    assert encode_mask(first, second, SIZE).hex() == "666c6f01911e63f403050003020100"


def mask_frame(*body: int) -> bytes:
    writer = Writer()
    writer.raw(bytes(body))
    return writer.to_frame(FrameKind.MASK)


BITMAP = 4


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (mask_frame(4, SIZE, BITMAP, 0), "unknown way 4"),
        (mask_frame(0, SIZE - 1, BITMAP, 0), "a mask of 39 entries, expected 40"),
        (mask_frame(1, SIZE, BITMAP, 0), "a mask leaves nothing"),
        (mask_frame(0, SIZE, BITMAP, SIZE + 1), "at most 40"),
        (mask_frame(0, SIZE, BITMAP, 1, 1, 0, 0, 0), "truncated"),
        (mask_frame(0, SIZE, BITMAP, 1, 1, 0, 0, 0, 0, 9), "1 bytes too many"),
        (mask_frame(0, SIZE, 77, 1), "unknown method 77"),
    ],
)
def test_a_mask_that_is_not_exactly_right_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        read_moves(frame, SPEC)


def test_an_update_behind_a_mask_holds_what_stays() -> None:
    after = Coverage.at(np.array([2, 5, 9]), SIZE)
    update = build_codec("none").encode(np.array([1, 2, 3], np.float32))
    moves, _ = read_moves(encode_mask(None, after, SIZE) + update, SPEC)
    assert moves[0] == after
    assert not isinstance(moves[1], Coverage)
    assert moves[1].to_dense()[[2, 5, 9]].tolist() == [1, 2, 3]
    with pytest.raises(PayloadError, match="3 entries, expected 40"):
        read_moves(update, SPEC)
