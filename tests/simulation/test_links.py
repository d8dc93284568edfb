"""Transfers take the time that changing links really give them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fl_opt.config import SimulationSettings
from fl_opt.errors import ConfigError
from fl_opt.simulation.devices import SteadyDevice, build_device_model
from fl_opt.simulation.links import Course, Piece, build_links, transfer_seconds

MEGABYTE = 1_000_000
MEAN = Piece(10.0, 50.0, 0.02)
HEADER = "time-s,uplink-mbps,downlink-mbps,latency-ms\n"


def steps(*pieces: tuple[float, float]) -> Course:
    """A course by bandwidth (both directions) and end of its pieces; the last never ends."""

    def course(start: float) -> Iterator[Piece]:
        yield from (Piece(mbps, mbps, 0.5, until) for mbps, until in pieces if until > start)

    return course


def traced(tmp_path: Path, text: str, start: str = "same") -> Course:
    path = tmp_path / "link.csv"
    path.write_text(text)
    return build_links(f"trace({path}, start={start})").course(MEAN, 1, 2)


def first(course: Course, moment: float) -> Piece:
    return next(course(moment))


class TestTransfer:
    def test_spans_changes(self) -> None:
        course = steps((8.0, 10.0), (0.0, 15.0), (2.0, math.inf))
        seconds = transfer_seconds(2 * MEGABYTE, 9.0, course, "uplink_mbps")
        # One megabyte in the second that is left, none for five seconds, the other in four.
        assert seconds == pytest.approx(0.5 + 1.0 + 5.0 + 4.0)

    def test_of_nothing_takes_the_latency(self) -> None:
        assert transfer_seconds(0, 12.0, steps((0.0, math.inf)), "uplink_mbps") == 0.5

    def test_takes_its_own_direction(self) -> None:
        course = build_links("steady").course(Piece(1.0, 4.0, 0.0), 1, 1)
        assert transfer_seconds(MEGABYTE, 0.0, course, "uplink_mbps") == 8.0
        assert transfer_seconds(MEGABYTE, 0.0, course, "downlink_mbps") == 2.0

    @given(
        st.lists(st.tuples(st.floats(0.0, 50.0), st.floats(0.01, 5.0)), max_size=8),
        st.floats(0.0, 20.0),
        st.integers(0, 5 * MEGABYTE),
        st.integers(0, 5 * MEGABYTE),
    )
    @settings(max_examples=60)
    def test_in_two_parts_takes_as_long_as_at_once(
        self, pieces: list[tuple[float, float]], start: float, one: int, other: int
    ) -> None:
        ends = itertools.accumulate(span for _, span in pieces)
        rates = [(mbps, end) for (mbps, _), end in zip(pieces, ends, strict=True)]
        course = steps(*rates, (3.0, math.inf))

        def moved(num_bytes: int, at: float) -> float:
            return at + transfer_seconds(num_bytes, at, course, "uplink_mbps") - 0.5

        assert moved(other, moved(one, start)) == pytest.approx(moved(one + other, start))


class TestLognormal:
    def test_has_the_mean_of_the_settings(self) -> None:
        course = build_links("lognormal(0.5, every=10)").course(MEAN, 3, 7)
        pieces = list(itertools.islice(course(0.0), 4000))
        rates = np.array([piece.uplink_mbps for piece in pieces])
        assert rates.mean() == pytest.approx(10.0, rel=0.04)  # 0.53 / sqrt(4000) = 0.8%
        assert np.log(rates).std() == pytest.approx(0.5, rel=0.04)
        spans = {round(b.until - a.until, 6) for a, b in itertools.pairwise(pieces)}
        assert spans == {10.0}
        assert {round(p.downlink_mbps / p.uplink_mbps, 9) for p in pieces} == {5.0}

    @given(st.floats(0.0, 1e6), st.sampled_from([0.1, 0.3, 7.0, 60.0]))
    @example(0.3, 0.1)
    @settings(max_examples=60)
    def test_is_a_function_of_time(self, moment: float, every: float) -> None:
        """Whoever comes by a moment finds the same link there, wherever it began to look."""
        course = build_links(f"lognormal(1.0, every={every})").course(MEAN, 3, 7)
        earlier = max(moment - 5 * every, 0.0)
        seen = {piece.until: piece for piece in itertools.islice(course(earlier), 9)}
        here = first(course, moment)
        assert seen[here.until] == here

    def test_clients_differ_and_change_at_different_moments(self) -> None:
        rule = build_links("lognormal(0.5)")
        one, other = (first(rule.course(MEAN, 3, client), 100.0) for client in (1, 2))
        assert one.uplink_mbps != other.uplink_mbps
        assert one.until != other.until
        assert first(rule.course(MEAN, 4, 1), 100.0) != one
        assert first(rule.course(MEAN, 3, 1), 100.0) == one


class TestTrace:
    def test_rows_hold_until_the_next_and_the_file_repeats(self, tmp_path: Path) -> None:
        course = traced(tmp_path, HEADER + "0,1,2,100\n10,3,4,200\n15,0,6,300\n")
        pieces = list(itertools.islice(course(12.0), 4))
        assert pieces == [
            Piece(3.0, 4.0, 0.2, 15.0),
            Piece(0.0, 6.0, 0.3, 20.0),
            Piece(1.0, 2.0, 0.1, 30.0),
            Piece(3.0, 4.0, 0.2, 35.0),
        ]
        assert first(course, 20.0) == pieces[2]
        assert first(course, 20e3 + 11.0)[:3] == (3.0, 4.0, 0.2)

    def test_columns_that_are_missing_are_as_the_settings_say(self, tmp_path: Path) -> None:
        assert first(traced(tmp_path, "mbps, time-s\n3, 0\n"), 1e6)[:3] == (3.0, 3.0, 0.02)
        text = "\ufefftime-s,uplink-mbps\r\n0,3\r\n\r\n5,4\r\n"
        assert first(traced(tmp_path, text), 6.0)[:3] == (4.0, 50.0, 0.02)

    def test_clients_begin_at_moments_of_their_own(self, tmp_path: Path) -> None:
        lines = "".join(f"{i},{i + 1}\n" for i in range(100))
        path = tmp_path / "link.csv"
        path.write_text("time-s,mbps\n" + lines)
        rule = build_links(f"trace({path})")
        begins = {first(rule.course(MEAN, 3, client), 0.0).uplink_mbps for client in range(9)}
        assert len(begins) > 5
        course = rule.course(MEAN, 3, 4)
        assert first(course, 250.0)[:3] == first(course, 50.0)[:3]

    def test_devices_follow_it(self, tmp_path: Path) -> None:
        path = tmp_path / "link.csv"
        path.write_text(HEADER + "0,8,8,0\n10,2,80,0\n")
        changing = SimulationSettings(links=f"trace({path}, same)", spread=1.0)
        device = build_device_model(changing, seed=1)(3)
        assert device.upload_seconds(2 * MEGABYTE, 9.0) == pytest.approx(1.0 + 4.0)
        assert device.download_seconds(2 * MEGABYTE, 9.0) == pytest.approx(1.0 + 0.1)
        steady = build_device_model(SimulationSettings(spread=1.0), seed=1)(3)
        assert device.compute_seconds(100, 0.0) == steady.compute_seconds(100, 5.0)

    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            ("", None, "a header and at least one line"),
            ("time-s,mbps\n", None, "a header and at least one line"),
            ("time-s,speed\n0,1\n", 1, "unknown column 'speed'; columns are time-s, mbps"),
            ("time-s,mbps,mbps\n0,1,1\n", 1, "column 'mbps' is there twice"),
            ("mbps\n1\n", 1, "no column 'time-s'"),
            ("time-s,latency-ms\n0,1\n", 1, "no column with a bandwidth"),
            ("time-s,mbps,uplink-mbps\n0,1,1\n", 1, "does not go with 'uplink-mbps'"),
            ("time-s,mbps\n0,1\n1\n", 3, "1 values for 2 columns"),
            ("time-s,mbps\n0,1\n1,fast\n", 3, "mbps = 'fast' is not a number"),
            ("time-s,mbps\n0,1\n\n1,-1\n", 4, "mbps = -1 is negative"),
            ("time-s,mbps\n0,nan\n", 2, "mbps = nan is negative or not finite"),
            ("time-s,mbps\n1,1\n", 2, "time-s = 1, in the first line it must be 0"),
            ("time-s,mbps\n0,1\n5,1\n5,2\n", 4, "time-s = 5 is not after 5"),
            ("time-s,mbps\n0,0\n5,0\n", None, "uplink-mbps is less than 0.001 on average"),
            ('time-s,mbps\n0,"1\n', None, "not readable"),
        ],
    )
    def test_bad_files_are_refused(
        self, text: str, line: int | None, words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            traced(tmp_path, text)
        assert words in str(caught.value)
        assert f"link.csv{'' if line is None else f', line {line}'}: " in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing_and_binary_files_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        for name in ("nothing", "binary", "."):
            with pytest.raises(ConfigError, match="not readable"):
                build_links(f"trace({tmp_path / name})")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("fast", "unknown links 'fast'; known are steady, lognormal, trace"),
        ("lognormal", "'sigma' must be given"),
        ("lognormal(4.0)", "sigma = 4.0 is not from 0 to 3"),
        ("lognormal(nan)", "sigma = nan is not from 0 to 3"),
        ("lognormal(1.0, every=0)", "every = 0.0 is not at least 0.1"),
        ("lognormal(1.0, inf)", "every = inf is not at least 0.1"),
        ("trace(a.csv, start=late)", "start = late is not valid"),
    ],
)
def test_bad_specs_are_refused(spec: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_device_model(SimulationSettings(links=spec), 1)
    assert words in str(caught.value)


def test_steady_links_are_those_of_ever() -> None:
    device = build_device_model(SimulationSettings(), 1)(0)
    assert isinstance(device, SteadyDevice)
    assert first(build_links("steady").course(MEAN, 1, 1), 5.0) == MEAN
