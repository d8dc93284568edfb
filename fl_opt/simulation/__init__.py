"""A federation in one process: simulated devices and time, real training and messages."""

from fl_opt.simulation.clock import Clock, VirtualClock, WallClock
from fl_opt.simulation.devices import (
    Device,
    DeviceModel,
    Link,
    SteadyDevice,
    build_device_model,
)
from fl_opt.simulation.grid import LinkTiming, VirtualGrid

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
    "build_device_model",
]
