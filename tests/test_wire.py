"""The frame: what is written is read, and nothing else is."""

from __future__ import annotations

import tracemalloc
import zlib
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fl_opt.codecs import build_codec, decode
from fl_opt.errors import PayloadError
from fl_opt.wire import (
    MAX_SIZE,
    FrameKind,
    Reader,
    Writer,
    split_frames,
    write_varint,
)
from tests.fixtures.vectors import patterned_vector

PAYLOAD = build_codec("topk(0.1) | uniform(bits=3, block=8)").encode(patterned_vector(300))


def reseal(payload: bytes | bytearray) -> bytes:
    """Give changed bytes a checksum that fits, so that something else must refuse them."""
    crc = zlib.crc32(payload[8:])
    return bytes(payload[:4]) + crc.to_bytes(4, "little") + bytes(payload[8:])


def frame(*parts: bytes) -> bytes:
    writer = Writer()
    for part in parts:
        writer.raw(part)
    return writer.to_frame(FrameKind.UPDATE)


@given(st.integers(0, 2**42 - 1))
@example(0)
@example(127)
@example(128)
@example(MAX_SIZE)
def test_varints(value: int) -> None:
    data = write_varint(value)
    reader = Reader(memoryview(data))
    assert reader.varint(2**42) == value
    reader.finish()


def test_varints_in_longer_form_or_too_long_are_refused() -> None:
    with pytest.raises(PayloadError, match="shortest form"):
        Reader(memoryview(b"\x80\x00")).varint()
    with pytest.raises(PayloadError, match="too long"):
        Reader(memoryview(b"\xff" * 9)).varint()
    with pytest.raises(PayloadError, match="at most 5"):
        Reader(memoryview(b"\x06")).varint(5)


def test_header_layout_is_the_documented_one() -> None:
    payload = frame(b"body")
    assert payload[:3] == b"flo"
    assert payload[3] == 1
    assert int.from_bytes(payload[4:8], "little") == zlib.crc32(payload[8:])
    assert payload[8:] == b"\x01\x04body"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "does not start with 'flo'"),
        (b"PK\x03\x04" * 9, "does not start with 'flo'"),
        (b"\x93NUMPY" + b"\0" * 99, "does not start with 'flo'"),
        (b"flo", "truncated"),
        (b"flo\x02" + PAYLOAD[4:], "format version 2"),
        (PAYLOAD[:-1], "truncated"),
        (PAYLOAD + b"\0", "1 bytes too many"),
        (PAYLOAD + PAYLOAD, "bytes too many"),
        (reseal(PAYLOAD[:8] + b"\x07" + PAYLOAD[9:]), "unknown kind 7"),
        (reseal(PAYLOAD[:8] + b"\x02" + PAYLOAD[9:]), "holds exact, expected update"),
        (frame(), "truncated"),
        (frame(write_varint(299), b"\0"), "another model: 299 entries, expected 300"),
        (frame(write_varint(300), b"\x09", b"\x01"), "unknown method 9 for positions"),
        (frame(write_varint(300), b"\x24", b"\x00"), "unknown method 36 for positions"),
        (frame(write_varint(300), b"\0\x63"), "unknown quantization 99"),
        (frame(write_varint(300), b"\0\x01\x05"), "unknown method 5 for codes"),
        (frame(write_varint(300), b"\x01", write_varint(301)), "301 where at most 300"),
    ],
)
def test_wrong_payloads_are_refused_with_the_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        decode(payload, size=300)


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    for index in range(len(PAYLOAD)):
        damaged = bytearray(PAYLOAD)
        damaged[index] ^= 1 << bit
        with pytest.raises(PayloadError):
            decode(bytes(damaged), size=300)


def test_any_truncation_is_refused() -> None:
    for length in range(len(PAYLOAD)):
        with pytest.raises(PayloadError):
            decode(PAYLOAD[:length], size=300)


def test_one_frame_too_many_is_refused() -> None:
    with pytest.raises(PayloadError, match="more than 256 frames"):
        list(split_frames(PAYLOAD * 257))
    with pytest.raises(PayloadError, match="empty payload"):
        list(split_frames(b""))


SPECS = [
    "none",
    "fp16",
    "bf16",
    "int8",
    "uniform(5, 16)",
    "topk(0.1) | fp32 | raw",
    "topk(0.1) | ternary | pack",
    "topk(0.6) | ternary | pack",
    "stc",
    "topk(0.1) | fp16 | rice",
    "randk(0.1) | fp16 | pack",
    "fp8(e5m2) | raw",
    "topk(0.1) | lloyd_max(3) | pack",
    "qsgd(3, 50) | pack",
    "sign | pack",
    "eden(1) | pack",
    "eden(3) | raw",
    "randk(0.5) | eden(0.5) | pack",
    "topk(0.1) | ternary | entropy",
    "topk(0.2) | uniform(12, 20) | entropy",
    "uniform(3, 100) | entropy",
    "ecsq(step=2)",
    "ecsq(step=0.2)",
]


@cache
def encoded(spec: str) -> bytes:
    return build_codec(spec).encode(patterned_vector(300))


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=-(-5000 // len(SPECS)), deadline=None)
@given(data=st.data())
def test_mutated_payloads_decode_to_finite_values_or_are_refused(
    spec: str, data: st.DataObject
) -> None:
    """Changes under a fitting checksum: 5,000 of them over all specs."""
    payload = bytearray(encoded(spec))
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(9, len(payload) - 1))
        payload[index] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    mutated = reseal(payload[: len(payload) - cut])
    try:
        update = decode(mutated, size=300)
    except PayloadError:
        return
    dense = update.to_dense()
    assert dense.shape == (300,)
    assert np.isfinite(dense).all()


@pytest.mark.parametrize(
    "body",
    [
        [write_varint(1 << 40), b"\0\x01\x00"],
        [write_varint(1 << 40), b"\x01", write_varint(1 << 40)],
        [write_varint(1 << 40), b"\x02", write_varint(1 << 39), b"\x01"],
        [write_varint(1 << 40), b"\x03", write_varint(1 << 39), b"\x05", write_varint(1 << 39)],
        [write_varint(1 << 40), b"\x04", write_varint(7)],
        [write_varint(1 << 40), b"\0\x04\x08\x01"],
        [write_varint(1 << 40), b"\x05", write_varint(1 << 39), b"seedseed\x01\x00"],
        [write_varint(1 << 40), b"\0\x08\x01\x01\0\0"],
    ],
    ids=["values", "raw", "pack", "rice", "bitmap", "steps", "seed", "rotated"],
)
def test_a_small_payload_that_claims_2_to_the_40_entries_costs_nothing(
    body: list[bytes],
) -> None:
    payload = frame(*body, b"\0" * 60)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            decode(payload, size=1 << 40)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
