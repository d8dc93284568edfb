"""A link as its replies tell of it: found, followed, and not thrown off by accidents."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.exchange.link_estimate import ORDINARY, LinkEstimate, median_link

rates = st.floats(0.05, 200.0)


def seconds(link: tuple[float, float, float], down: float, up: float) -> float:
    """What a link takes: latency in seconds, Mbit/s down and up."""
    return link[0] + 8 * down / 1e6 / link[1] + 8 * up / 1e6 / link[2]


def watched(
    link: tuple[float, float, float], replies: int, *, noise: float = 0.0, seed: int = 0
) -> LinkEstimate:
    """An estimate after some replies of different sizes."""
    generator, estimate = np.random.default_rng(seed), LinkEstimate()
    feed(estimate, link, replies, generator, noise)
    return estimate


def feed(
    estimate: LinkEstimate,
    link: tuple[float, float, float],
    replies: int,
    generator: np.random.Generator,
    noise: float,
) -> None:
    for _ in range(replies):
        down, up = int(generator.uniform(5e3, 5e4)), int(generator.choice([1e3, 4e3, 2e4]))
        factor = math.exp(noise * generator.standard_normal())
        estimate.observe(down, up, factor * seconds(link, down, up))


@given(rates, rates, st.floats(0.01, 0.2))
def test_what_links_will_take_is_foretold(down: float, up: float, latency: float) -> None:
    link = (latency, down, up)
    estimate = watched(link, 25)
    for sizes in ((3e4, 2e3), (1e4, 1e4)):
        expected = seconds(link, *sizes)
        assert estimate.seconds(*sizes) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize("link", [(0.04, 50.0, 10.0), (0.04, 1.0, 0.2), (0.2, 5.0, 5.0)])
def test_noise_is_averaged_out(link: tuple[float, float, float]) -> None:
    errors = []
    for seed in range(20):
        found = watched(link, 15, noise=0.3, seed=seed).seconds(3e4, 5e3)
        errors.append(abs(math.log(found / seconds(link, 3e4, 5e3))))
    assert np.median(errors) < 0.2


def test_a_link_that_changes_is_followed() -> None:
    estimate = watched((0.04, 50.0, 10.0), 20, noise=0.1)
    slow = (0.04, 2.0, 0.5)
    feed(estimate, slow, 4, np.random.default_rng(1), 0.1)
    assert estimate.seconds(3e4, 5e3) == pytest.approx(seconds(slow, 3e4, 5e3), rel=0.4)


def test_one_slow_reply_is_an_accident() -> None:
    link = (0.04, 5.0, 1.0)
    estimate = watched(link, 20, noise=0.1)
    before = estimate.seconds(3e4, 5e3)
    estimate.observe(30_000, 5_000, 30 * before)
    assert estimate.seconds(3e4, 5e3) < 3 * before


def test_the_first_reply_tells_of_both_directions() -> None:
    estimate = LinkEstimate()
    estimate.observe(40_000, 500, 4.0)  # all but the latency: 0.08 Mbit/s down
    assert estimate.mbps[0] < 0.2
    assert estimate.mbps[1] < 0.4


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_times_that_cannot_be_are_left_out(bad: float) -> None:
    estimate = LinkEstimate()
    estimate.observe(1000, 1000, bad)
    assert estimate.mean == pytest.approx(ORDINARY)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(1e-6, 1e6)),
        max_size=30,
    )
)
def test_estimates_stay_numbers_and_go_on_from_a_checkpoint(
    replies: list[tuple[int, int, float]],
) -> None:
    one, other = LinkEstimate(), LinkEstimate()
    for reply in replies:
        one.observe(*reply)
        other.observe(*reply)
        other = LinkEstimate.restored(other.state())
        assert other.state() == one.state()
    assert all(0.0 < number < math.inf for number in one.mean)


@pytest.mark.parametrize("numbers", [[], [1.0] * 12, [math.nan] * 14])
def test_a_damaged_state(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="14 finite numbers"):
        LinkEstimate.restored(numbers)


def test_the_median_link() -> None:
    assert median_link([]) == ORDINARY
    links = [LinkEstimate((0.01 * k, float(k), 2.0 * k)) for k in (1, 2, 30)]
    assert median_link(links) == pytest.approx((0.02, 2.0, 4.0))
