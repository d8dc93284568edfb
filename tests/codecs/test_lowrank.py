"""PowerSGD: exact on low-rank matrices, honest about all others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.codecs.lowrank import LOW_RANK_METHOD, Part, Parts
from fl_opt.errors import CodecError, ConfigError, PayloadError
from fl_opt.wire import FrameKind, Reader, Writer, write_varint


def low_rank(rows: int, columns: int, rank: int, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    left = generator.standard_normal((rows, rank))
    return (left @ generator.standard_normal((rank, columns))).astype(np.float32).reshape(-1)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_matrices_of_the_rank_are_exact(rank: int, scale: float) -> None:
    vector = low_rank(60, 90, rank) * np.float32(scale)
    payload = build_codec(f"powersgd({rank})").encode(vector, layout=((60, 90),))
    decoded = decode(payload, size=vector.size).to_dense()
    np.testing.assert_allclose(decoded, vector, rtol=0, atol=2e-5 * np.abs(vector).max())
    assert len(payload) < 4 * rank * (60 + 90) + 48


def test_more_iterations_come_close_to_the_best_approximation() -> None:
    generator = np.random.default_rng(1)
    spectrum = 0.8 ** np.arange(50)
    left, _ = np.linalg.qr(generator.standard_normal((80, 50)))
    right, _ = np.linalg.qr(generator.standard_normal((70, 50)))
    vector = ((left * spectrum) @ right.T).astype(np.float32).reshape(-1)
    best = float(np.sqrt(np.square(spectrum[4:]).sum()))
    errors = []
    for iterations in (1, 2, 6):
        codec = build_codec(f"powersgd(4, iterations={iterations})")
        decoded = decode(codec.encode(vector, layout=((80, 70),)), size=vector.size).to_dense()
        errors.append(float(np.linalg.norm(decoded - vector)))
    assert errors[0] > errors[1] > errors[2]
    assert best <= errors[2] < 1.02 * best


def test_small_arrays_and_vectors_are_sent_as_they_are() -> None:
    layout = ((30, 40), (40,), (2, 2), (), (0, 5), (16, 3, 5, 5))
    size = 1200 + 40 + 4 + 1 + 1200
    vector = np.random.default_rng(2).standard_normal(size).astype(np.float32)
    payload = build_codec("powersgd(1)").encode(vector, layout=layout)
    decoded = decode(payload, size=size).to_dense()
    np.testing.assert_array_equal(decoded[1200:1245], vector[1200:1245])
    assert 0 < np.linalg.norm(decoded - vector) < np.linalg.norm(vector)
    assert len(payload) < 4 * (70 + 45 + 16 + 75) + 64


def test_factors_can_be_quantized() -> None:
    vector = low_rank(100, 100, 2)
    payload = build_codec("powersgd(2) | uniform(bits=8)").encode(vector, layout=((100, 100),))
    decoded = decode(payload, size=vector.size).to_dense()
    assert np.linalg.norm(decoded - vector) < 0.02 * np.linalg.norm(vector)
    assert len(payload) < 500


def test_zeros_stay_zeros_and_nan_is_named() -> None:
    codec = build_codec("powersgd(1)")
    zeros = np.zeros(400, np.float32)
    assert not decode(codec.encode(zeros, layout=((20, 20),)), size=400).to_dense().any()
    zeros[77] = np.nan
    with pytest.raises(CodecError, match="entry 77") as caught:
        codec.encode(zeros, layout=((20, 20),))
    assert caught.value.position == 77


@pytest.mark.parametrize("spec", ["powersgd(0)", "powersgd(2, 0)", "powersgd(2000)"])
def test_arguments_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="is not between"):
        build_codec(spec)


@pytest.mark.parametrize(
    "parts",
    [
        (Part(10, 10, 2), Part(1)),
        (Part(10, 9, 2),),
        (Part(101),),
        (Part(10, 10, 9),),
        (Part(0, 10, 1), Part(100)),
        (),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: tuple[Part, ...]) -> None:
    writer = Writer()
    Parts(parts).write(writer)
    frame = writer.to_frame(FrameKind.UPDATE)
    with pytest.raises(PayloadError, match="malformed payload"):
        Parts.read(Reader(memoryview(frame)[10:]), 100)


def test_low_rank_updates_do_not_nest() -> None:
    writer = Writer()
    for _ in range(2):
        writer.varint(100)
        writer.byte(LOW_RANK_METHOD)
        Parts((Part(100),)).write(writer)
    writer.raw(write_varint(100) + b"\0")
    with pytest.raises(PayloadError, match="unknown method 16"):
        decode(writer.to_frame(FrameKind.UPDATE), size=100)
