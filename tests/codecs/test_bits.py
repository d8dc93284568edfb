"""Bit packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.codecs.bits import pack, packed_size, unpack
from fl_opt.errors import PayloadError
from fl_opt.wire import Reader


@settings(max_examples=300, deadline=None)
@given(data=st.data(), width=st.integers(0, 40), count=st.integers(0, 70))
def test_unpack_undoes_pack(data: st.DataObject, width: int, count: int) -> None:
    numbers = data.draw(
        st.lists(st.integers(0, (1 << width) - 1), min_size=count, max_size=count)
    )
    codes = np.array(numbers, np.uint64)
    packed = pack(codes, width)
    assert len(packed) == packed_size(count, width)
    assert len(packed) <= count * width / 8 + 1
    reader = Reader(memoryview(packed))
    assert unpack(reader, count, width).tolist() == numbers
    reader.finish()


@pytest.mark.parametrize("width", [1, 3, 7, 9, 12])
def test_set_padding_bits_are_refused(width: int) -> None:
    packed = bytearray(pack(np.zeros(3, np.uint16), width))
    packed[-1] |= 0x80
    with pytest.raises(PayloadError, match="padding"):
        unpack(Reader(memoryview(packed)), 3, width)


def test_missing_bytes_are_refused() -> None:
    with pytest.raises(PayloadError, match="truncated"):
        unpack(Reader(memoryview(b"\0\0")), 30, 5)
