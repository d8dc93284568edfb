"""Devices take the time that arithmetic says, and differ as the spread says."""

from __future__ import annotations

import numpy as np
import pytest

from fl_opt.config import SimulationSettings
from fl_opt.simulation.devices import Link, SteadyDevice, build_device_model

SETTINGS = SimulationSettings(
    uplink_mbps=10.0, downlink_mbps=50.0, latency_ms=20.0, samples_per_second=2000.0
)


def test_times_of_the_settings() -> None:
    device = build_device_model(SETTINGS, seed=1)(3)
    assert device.download_seconds(1_000_000, 0.0) == pytest.approx(0.02 + 8 / 50)
    assert device.upload_seconds(1_000_000, 0.0) == pytest.approx(0.02 + 8 / 10)
    assert device.compute_seconds(500, 0.0) == pytest.approx(0.25)


def test_spread_is_lognormal_with_median_one() -> None:
    model = build_device_model(SETTINGS.model_copy(update={"spread": 0.5}), seed=7)
    devices = [model(index) for index in range(2000)]
    for values, median in (
        ([d.samples_per_second for d in devices], 2000.0),
        ([d.link.uplink_mbps for d in devices], 10.0),
    ):
        logs = np.log(np.array(values) / median)
        assert abs(logs.mean()) < 0.04  # 0.5 / sqrt(2000) = 0.011
        assert logs.std() == pytest.approx(0.5, rel=0.08)
    ratio = {round(d.link.downlink_mbps / d.link.uplink_mbps, 9) for d in devices}
    assert ratio == {5.0}


def test_depends_on_seed_and_client_alone() -> None:
    settings = SETTINGS.model_copy(update={"spread": 1.0})
    one, same, other = (build_device_model(settings, seed) for seed in (1, 1, 2))
    assert one(5) == same(5)
    assert one(5) != other(5)
    assert one(5) != one(6)


@pytest.mark.parametrize("link", [(0.0, 1.0, 0.0), (1.0, -1.0, 0.0), (1.0, 1.0, -0.1)])
def test_refuses_impossible_links(link: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="not a link"):
        Link(*link)


def test_refuses_impossible_speed() -> None:
    with pytest.raises(ValueError, match="not a speed"):
        SteadyDevice(Link(1.0, 1.0, 0.0), 0.0)
