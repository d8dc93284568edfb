"""The entropy coder: right, near the entropy, below it where there is structure, safe."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, code, decode, entropy, numbers, rice
from fl_opt.codecs.bits import Unsigned, packed_size
from fl_opt.codecs.bitstream import BitReader, BitWriter
from fl_opt.codecs.code import CodeMethod, PositionMethod
from fl_opt.errors import PayloadError
from fl_opt.wire import FrameKind, Reader, Writer, read_frame, write_varint


def reader_of(data: bytes) -> Reader:
    return Reader(memoryview(data))


def entropy_bits(p: float) -> float:
    return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


def rows_of_unequal_size(size: int, seed: int = 1) -> NDArray[np.float32]:
    """Rows whose scales and signs differ, as in a layer's update."""
    generator = np.random.default_rng(seed)
    values = generator.laplace(size=size)
    scales = np.repeat(generator.lognormal(-1.0, 1.2, size // 500 + 1), 500)[:size]
    signs = np.repeat(generator.choice([-1.0, 1.0], size // 500 + 1), 500)[:size]
    aligned = generator.random(size) < 0.8
    return (np.where(aligned, np.abs(values) * signs, values) * scales).astype(np.float32)


class TestBits:
    @given(st.lists(st.integers(1, 2**41), max_size=20), st.integers(0, 9))
    def test_counts_and_planes_are_read_back(self, counts: list[int], width: int) -> None:
        values = np.arange(37) % (1 << width)
        stream = BitWriter()
        for value in counts:
            stream.count(value)
        stream.planes(values, width)
        source = reader_of(stream.to_bytes())
        found = BitReader(source)
        assert [found.count(2**41) for _ in counts] == counts
        assert found.planes(37, width, np.dtype(np.int32)).tolist() == values.tolist()
        found.finish()
        source.finish()

    def test_counts_above_the_limit_are_refused(self) -> None:
        stream = BitWriter()
        stream.count(9)
        with pytest.raises(PayloadError, match="9 where at most 8"):
            BitReader(reader_of(stream.to_bytes())).count(8)
        with pytest.raises(PayloadError, match="count of more than 8"):
            BitReader(reader_of(b"\0\0\0")).count(8)


class TestNumbers:
    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.integers(0, 2**40) | st.integers(0, 20), min_size=1, max_size=80))
    @example([0])
    @example([0] * 50)
    @example([2**40])
    def test_what_is_written_is_read_and_costs_what_was_planned(self, given: list[int]) -> None:
        values = np.array(given, np.int64)
        plan = numbers.plan(values)
        stream = BitWriter()
        numbers.write(stream, values, plan)
        data = stream.to_bytes()
        assert len(data) == (plan.num_bits + 7) // 8
        source = reader_of(data)
        bits = BitReader(source)
        assert numbers.read(bits, values.size, 2**40).tolist() == given
        bits.finish()
        source.finish()

    def test_the_tree_is_the_best_of_all(self) -> None:
        """Against a search through all trees, for a handful of classes."""

        def least(weights: tuple[int, ...]) -> int:
            if len(weights) == 1:
                return 0
            return sum(weights) + min(
                least(weights[:cut]) + least(weights[cut:]) for cut in range(1, len(weights))
            )

        generator = np.random.default_rng(0)
        for size in range(2, 9):
            weights = generator.integers(0, 100, size)
            _, steps = numbers._best_tree(weights)
            assert steps == least(tuple(weights.tolist()))

    @pytest.mark.parametrize("mean", [1.5, 5.0, 100.0, 1e4, 1e7])
    def test_geometric_numbers_cost_little_more_than_their_entropy(self, mean: float) -> None:
        values = np.random.default_rng(2).geometric(1 / (1 + mean), 200_000) - 1
        bound = 200_000 * entropy_bits(1 / (1 + mean)) * (1 + mean)
        assert bound * 0.99 < numbers.plan(values).num_bits < bound * 1.04

    def test_numbers_over_many_magnitudes_cost_less_than_in_a_rice_code(self) -> None:
        values = np.exp(np.random.default_rng(3).uniform(0, 12, 50_000)).astype(np.int64)
        assert numbers.plan(values).num_bits / 8 < 0.85 * rice.cost(values)

    def test_every_number_takes_a_bit_and_trees_end(self) -> None:
        with pytest.raises(PayloadError, match="without bits"):
            numbers.read(BitReader(reader_of(b"\0")), 1 << 40, 1 << 40)
        with pytest.raises(PayloadError, match="too deep"):
            numbers.read(BitReader(reader_of(b"\xfc" + b"\xff" * 99)), 5, 1 << 40)
        with pytest.raises(PayloadError, match="beyond what is possible"):
            numbers.read(BitReader(reader_of(b"\x54\x55\x55\x55\x55")), 5, 3)
        with pytest.raises(PayloadError, match="resolution 3"):
            numbers.read(BitReader(reader_of(b"\xff\0")), 5, 3)


class TestPositions:
    @settings(max_examples=200, deadline=None)
    @given(st.sets(st.integers(0, 5000), min_size=1, max_size=200))
    def test_what_is_written_is_read(self, chosen: set[int]) -> None:
        positions = np.array(sorted(chosen), np.int64)
        writer = Writer()
        code.write_positions(writer, positions, 5001, (PositionMethod.ENTROPY,))
        reader = read_frame(writer.to_frame(FrameKind.UPDATE), FrameKind.UPDATE)
        assert reader.byte() == PositionMethod.ENTROPY
        found = code.read_positions(reader, PositionMethod.ENTROPY, 5001)
        reader.finish()
        assert found.dtype == np.int64
        assert found.tolist() == positions.tolist()

    def test_a_sum_of_gaps_beyond_the_vector_is_refused(self) -> None:
        coded = entropy.encode_positions(np.array([70, 60], np.int64))
        with pytest.raises(PayloadError, match="do not increase"):
            code.read_positions(reader_of(b"\x02" + coded), PositionMethod.ENTROPY, 100)


class TestCodes:
    @settings(max_examples=120, deadline=None)
    @given(st.data(), st.integers(1, 16), st.integers(0, 200))
    def test_codes_are_read_back(self, data: st.DataObject, width: int, size: int) -> None:
        top = (1 << width) - 1
        near = st.integers(max(0, top // 2 - 2), min(top, top // 2 + 2))
        drawn = data.draw(st.lists(near | st.integers(0, top), min_size=size, max_size=size))
        codes: Unsigned = np.array(drawn, np.uint8 if width <= 8 else np.uint16)
        source = reader_of(entropy.encode_codes(codes, width))
        found = entropy.read_codes(source, size, width)
        source.finish()
        assert found.dtype == codes.dtype
        assert found.tolist() == drawn

    @pytest.mark.parametrize("scale", [0.2, 0.7, 2.0, 10.0])
    def test_independent_codes_cost_little_more_than_their_entropy(self, scale: float) -> None:
        generator = np.random.default_rng(5)
        codes = (np.rint(generator.laplace(size=100_000) * scale) + 127).astype(np.uint8)
        shares = np.bincount(codes) / codes.size
        bound = -float(shares @ np.log2(np.where(shares > 0, shares, 1.0))) * codes.size / 8
        assert bound * 0.99 < len(entropy.encode_codes(codes, 8)) < bound * 1.05

    def test_runs_of_equal_signs_and_clusters_of_large_codes_are_found(self) -> None:
        vector = rows_of_unequal_size(100_000)
        signs: Unsigned = np.signbit(vector).view(np.uint8)
        assert len(entropy.encode_codes(signs, 1)) < 0.75 * packed_size(signs.size, 1)
        codes = (np.clip(np.rint(vector), -7, 7) + 7).astype(np.uint8)
        shares = np.bincount(codes) / codes.size
        static = -float(shares @ np.log2(np.where(shares > 0, shares, 1.0))) * codes.size / 8
        assert len(entropy.encode_codes(codes, 4)) < 0.9 * static

    @pytest.mark.parametrize("width", [1, 2, 5, 8, 9, 16])
    def test_garbage_is_refused_or_gives_codes_of_the_right_kind(self, width: int) -> None:
        generator = np.random.default_rng(width)
        start = time.perf_counter()
        for _ in range(400):
            data = generator.bytes(int(generator.integers(1, 60)))
            source = reader_of(data)
            try:
                codes = entropy.read_codes(source, 100, width)
                source.finish()
            except PayloadError:
                continue
            assert codes.shape == (100,)
            assert codes.max() < 1 << width
        assert time.perf_counter() - start < 30

    def test_steps_without_end_are_refused(self) -> None:
        full = b"\x49\x92\x24" * 9  # the method FULL, again and again
        with pytest.raises(PayloadError, match="too many steps"):
            entropy.read_codes(reader_of(full), 10, 8)

    def test_codes_of_many_values_need_bytes(self) -> None:
        zeros = np.full(1 << 17, 7, np.uint8)
        coded = entropy.encode_codes(zeros, 4)
        assert len(coded) == 4
        assert (entropy.read_codes(reader_of(coded), zeros.size, 4) == 7).all()
        with pytest.raises(PayloadError, match="131072 codes in 3 bytes"):
            entropy.read_codes(reader_of(coded[:3]), zeros.size, 4)
        with pytest.raises(PayloadError, match="padding"):
            entropy.read_codes(reader_of(coded[:3] + b"\1"), zeros.size, 4)

    def test_wide_codes_are_refused(self) -> None:
        with pytest.raises(PayloadError, match="32 bits"):
            entropy.read_codes(reader_of(b"\0" * 9), 3, 32)


class TestPayloads:
    @pytest.mark.parametrize("density", [0.01, 0.0025, 0.001])
    @pytest.mark.parametrize("coder", ["auto", "entropy"])
    def test_random_top_k_costs_at_most_one_percent_more_than_its_entropy(
        self, density: float, coder: str
    ) -> None:
        vector = np.random.default_rng(1).laplace(size=4_000_000).astype(np.float32)
        payload = build_codec(f"topk({density}) | ternary | {coder}").encode(vector)
        static = (entropy_bits(density) + density) * vector.size / 8
        assert len(payload) <= 1.01 * static

    @pytest.mark.parametrize("density", [0.05, 0.01, 0.0025])
    def test_top_k_of_rows_of_unequal_size_costs_less_than_its_static_entropy(
        self, density: float
    ) -> None:
        vector = rows_of_unequal_size(1_000_000)
        payload = build_codec(f"topk({density}) | ternary").encode(vector)
        static = (entropy_bits(density) + density) * vector.size / 8
        assert len(payload) < 0.8 * static

    def test_auto_is_never_larger_than_the_others(self) -> None:
        for vector in (
            rows_of_unequal_size(30_000),
            np.random.default_rng(4).standard_normal(30_000).astype(np.float32),
        ):
            for head in ("topk(0.02) | ternary", "topk(0.6) | ternary"):
                auto = len(build_codec(head).encode(vector))
                for coder in ("raw", "pack", "rice", "entropy"):
                    other = len(build_codec(f"{head} | {coder}").encode(vector))
                    assert auto <= other + 8 + 0.002 * other

    def test_auto_spends_time_on_dense_codes_only_where_it_halves_them(self) -> None:
        generator = np.random.default_rng(6)
        for scale, chosen in ((30.0, CodeMethod.PACK), (0.1, CodeMethod.ENTROPY)):
            codes = (
                np.clip(np.rint(generator.laplace(size=9000) * scale), -127, 127) + 127
            ).astype(np.uint8)
            writer = Writer()
            code.write_codes(writer, codes, 8, code.Auto.code_methods)
            source = read_frame(writer.to_frame(FrameKind.UPDATE), FrameKind.UPDATE)
            assert source.byte() in (
                chosen,
                CodeMethod.RAW if chosen == CodeMethod.PACK else chosen,
            )

    @pytest.mark.parametrize(
        "body",
        [
            [b"\x06", write_varint(1 << 39), b"\x04\x00"],
            [b"\x00\x09\x02", np.float32(1).tobytes(), b"\x01\x00\x02"],
            [b"\x00\x05", np.float32(1).tobytes(), b"\x02"],
        ],
        ids=["positions", "codes", "signs"],
    )
    def test_a_small_payload_that_claims_2_to_the_40_entries_costs_nothing(
        self, body: list[bytes]
    ) -> None:
        writer = Writer()
        writer.varint(1 << 40)
        for part in [*body, b"\0" * 60]:
            writer.raw(part)
        payload = writer.to_frame(FrameKind.UPDATE)
        tracemalloc.start()
        try:
            with pytest.raises(PayloadError):
                decode(payload, size=1 << 40)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 100_000
