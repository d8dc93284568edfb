"""How long a simulated client takes: its link to the server and its speed.

A device is anything that answers three questions: how long a download, a piece of work and an
upload take that begin at a given moment. The moment lets devices change over time;
``math.inf`` means that it never ends, because the device has left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from fl_opt.config import SimulationSettings
from fl_opt.simulation.links import Course, Piece, SteadyLinks, build_links, transfer_seconds

BITS_PER_BYTE = 8
MEGA = 1_000_000


class Device(Protocol):
    """Times of one client, in seconds; ``start`` is in seconds of the grid's clock."""

    def download_seconds(self, num_bytes: int, start: float, /) -> float:
        """Return the time until ``num_bytes`` from the server have arrived."""
        ...

    def compute_seconds(self, num_samples: float, start: float, /) -> float:
        """Return the time to train on ``num_samples`` samples."""
        ...

    def upload_seconds(self, num_bytes: int, start: float, /) -> float:
        """Return the time until ``num_bytes`` have arrived at the server."""
        ...


DeviceModel: TypeAlias = Callable[[int], Device]
"""Gives the device of a client by its partition id; the same one every time."""


@dataclass(frozen=True)
class Link:
    """A connection of constant speed.

    Parameters
    ----------
    uplink_mbps, downlink_mbps : float
        Bandwidth in megabits (10^6 bits) a second, towards and from the server.
    latency_seconds : float
        From the first bit sent to the first bit received.
    """

    uplink_mbps: float
    downlink_mbps: float
    latency_seconds: float

    def __post_init__(self) -> None:
        if not (self.uplink_mbps > 0 and self.downlink_mbps > 0 and self.latency_seconds >= 0):
            raise ValueError(f"not a link: {self}")


@dataclass(frozen=True)
class SteadyDevice:
    """A device that is always there and always equally fast.

    Parameters
    ----------
    link : Link
    samples_per_second : float
        Training speed: forward and backward pass.
    """

    link: Link
    samples_per_second: float

    def __post_init__(self) -> None:
        if not self.samples_per_second > 0:
            raise ValueError(f"not a speed: {self.samples_per_second} samples a second")

    def download_seconds(self, num_bytes: int, _start: float, /) -> float:
        """Take latency plus size over bandwidth."""
        return self.link.latency_seconds + _transfer(num_bytes, self.link.downlink_mbps)

    def compute_seconds(self, num_samples: float, _start: float, /) -> float:
        """Take samples over speed."""
        return num_samples / self.samples_per_second

    def upload_seconds(self, num_bytes: int, _start: float, /) -> float:
        """Take latency plus size over bandwidth."""
        return self.link.latency_seconds + _transfer(num_bytes, self.link.uplink_mbps)


@dataclass(frozen=True)
class ChangingDevice:
    """A device that is always there, with a link that changes.

    Parameters
    ----------
    link : Link
        As the settings have it.
    course : callable
        What becomes of it, a :data:`~fl_opt.simulation.links.Course`.
    samples_per_second : float
        Training speed: forward and backward pass.
    """

    link: Link
    course: Course
    samples_per_second: float

    def download_seconds(self, num_bytes: int, start: float, /) -> float:
        """Take as long as the link lets it, through all its changes."""
        return transfer_seconds(num_bytes, start, self.course, "downlink_mbps")

    def compute_seconds(self, num_samples: float, _start: float, /) -> float:
        """Take samples over speed."""
        return num_samples / self.samples_per_second

    def upload_seconds(self, num_bytes: int, start: float, /) -> float:
        """Take as long as the link lets it, through all its changes."""
        return transfer_seconds(num_bytes, start, self.course, "uplink_mbps")


def build_device_model(
    settings: SimulationSettings, seed: int
) -> Callable[[int], SteadyDevice | ChangingDevice]:
    """Build the devices that the settings describe.

    With ``spread`` s > 0 every client has its own speed and bandwidth: the settings' values
    times ``exp(s z)``, z standard normal: a lognormal factor of median 1, drawn once for the
    speed and once for the link, both directions alike. ``links`` says how that link changes
    from there; what a trace says of a bandwidth is taken as it is, for every client.

    Parameters
    ----------
    settings : SimulationSettings
    seed : int
        A client's device depends on this seed and its partition id alone.

    Returns
    -------
    callable
        A :data:`DeviceModel`.

    Raises
    ------
    ConfigError
        If ``links`` is wrong, or names a file that is.
    """
    links = build_links(settings.links)

    def device(partition_id: int) -> SteadyDevice | ChangingDevice:
        generator = np.random.default_rng([seed, partition_id])
        speed, bandwidth = (
            math.exp(settings.spread * z) for z in generator.standard_normal(2).tolist()
        )
        link = Link(
            uplink_mbps=settings.uplink_mbps * bandwidth,
            downlink_mbps=settings.downlink_mbps * bandwidth,
            latency_seconds=settings.latency_ms / 1000.0,
        )
        samples_per_second = settings.samples_per_second * speed
        if isinstance(links, SteadyLinks):
            return SteadyDevice(link, samples_per_second)
        mean = Piece(link.uplink_mbps, link.downlink_mbps, link.latency_seconds)
        course = links.course(mean, seed, partition_id)
        return ChangingDevice(link, course, samples_per_second)

    return device


def _transfer(num_bytes: int, mbps: float) -> float:
    return num_bytes * BITS_PER_BYTE / (mbps * MEGA)
