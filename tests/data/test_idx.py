from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fl_opt.data.idx import read_idx
from fl_opt.errors import DataError
from tests.data.idx_files import idx_bytes

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def test_reads_plain_and_compressed_files(tmp_path: Path) -> None:
    plain, packed = tmp_path / "images", tmp_path / "images.gz"
    plain.write_bytes(idx_bytes(IMAGES))
    packed.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    assert_array_equal(read_idx(plain, 3), IMAGES)
    assert_array_equal(read_idx(packed, 3), IMAGES)
    assert read_idx(plain, 3).flags.writeable


def test_reads_a_file_of_no_entries(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.empty(0, np.uint8)))
    assert read_idx(path, 1).shape == (0,)


GOOD = idx_bytes(IMAGES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "starts with nothing"),
        (b"\x00\x00\x08", "starts with 00 00 08"),
        (b"\x89PNG" + GOOD[4:], "no IDX file"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "no IDX file of unsigned bytes"),
        (b"\x00\x00\x08\x01" + GOOD[4:], "in 3 dimensions"),
        (GOOD[:10], "ends within its header"),
        (GOOD[:-1], "holds 23 bytes of data, its header says 24"),
        (GOOD + b"x", "holds 25 bytes of data, its header says 24"),
        (GOOD[:4] + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1), "holds 0 bytes"),
    ],
)
def test_refuses_what_is_not_exactly_right(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


PACKED = gzip.compress(GOOD, mtime=0)  # no time: tests have the same names in every process


@pytest.mark.parametrize("content", [PACKED[:-9], b"no gzip", PACKED[:20] + b"\xff" * 30])
def test_refuses_damaged_compression(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.gz"):
        read_idx(path, 3)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*No such file"):
        read_idx(tmp_path / "absent", 1)
