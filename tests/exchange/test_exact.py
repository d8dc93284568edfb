"""Arrays that travel exactly."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

from fl_opt.errors import CodecError, PayloadError
from fl_opt.exchange.exact import ExactMean, encode_exact, read_exact
from fl_opt.params import ParamSpec
from fl_opt.wire import FrameKind, Writer, read_frame

ARRAYS: dict[str, NDArray[np.generic]] = {
    "bn.running_mean": np.array([0.1, -2.5e-30, 3.4e38], np.float32),
    "bn.running_var": np.full((2, 500), 0.25),
    "bn.num_batches_tracked": np.array(2**62 + 1),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 3), np.int16),
}
SPEC = ParamSpec.of(ARRAYS, ["bn.running_*"])


def body(data: bytes, method: int = 0) -> bytes:
    writer = Writer()
    writer.byte(method)
    writer.raw(data)
    return writer.to_frame(FrameKind.EXACT)


def test_arrays_arrive_bit_for_bit() -> None:
    found = read_exact(read_frame(encode_exact(SPEC, ARRAYS), FrameKind.EXACT), SPEC)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_compresses_is_compressed() -> None:
    assert len(encode_exact(SPEC, ARRAYS)) < 200 < sum(a.nbytes for a in ARRAYS.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    arrays = {**ARRAYS, "bn.running_var": np.full((2, 500), bad)}
    with pytest.raises(CodecError, match=r"'bn.running_var' holds NaN or infinity"):
        encode_exact(SPEC, arrays)
    plain = b"".join(array.tobytes() for array in arrays.values())
    with pytest.raises(PayloadError, match=r"'bn.running_var' holds NaN or infinity"):
        read_exact(read_frame(body(plain), FrameKind.EXACT), SPEC)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (body(b"\0" * 10), "hold 10 bytes, expected 8022"),
        (body(zstandard.compress(b"\0" * 10**9), 1), "hold 1000000000 bytes, expected 8022"),
        (body(b"\x28\xb5\x2f\xfd\x00", 1), "malformed payload|hold"),
        (body(zstandard.compress(b"\0" * 8022)[:-3], 1), "malformed payload"),
        (body(zstandard.compress(b"\0" * 8022) + b"!", 1), "malformed payload"),
        (body(b"", 9), "unknown compression 9"),
    ],
)
def test_malformed_frames_are_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        read_exact(read_frame(frame, FrameKind.EXACT), SPEC)


def test_statistics_are_averaged_by_weight_and_counters_take_the_largest() -> None:
    first = {
        "mean": np.array([1.0, 0.0], np.float32),
        "count": np.array(5),
        "flag": np.array(False),
    }
    second = {
        "mean": np.array([4.0, 3.0], np.float32),
        "count": np.array(2),
        "flag": np.array(True),
    }
    mean = ExactMean(ParamSpec.of(first, ["mean"]))
    mean.add(first, 1)
    mean.add(second, 2)
    result = mean.result()
    assert result["mean"].tolist() == [3.0, 2.0]
    assert result["mean"].dtype == np.float32
    assert (int(result["count"]), bool(result["flag"])) == (5, True)
