"""A federation on one machine: simulated devices and time, real training and messages."""

from fl_opt.simulation.clock import Clock, VirtualClock, WallClock
from fl_opt.simulation.devices import (
    Device,
    DeviceModel,
    Link,
    SteadyDevice,
    build_device_model,
)
from fl_opt.simulation.grid import VirtualGrid
from fl_opt.simulation.pool import WorkerPool
from fl_opt.simulation.transit import LinkTiming

__all__ = [
    "Clock",
    "Device",
    "DeviceModel",
    "Link",
    "LinkTiming",
    "SteadyDevice",
    "VirtualClock",
    "VirtualGrid",
    "WallClock",
    "WorkerPool",
    "build_device_model",
]
