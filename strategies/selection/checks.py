"""Checks that settings have in common."""

from __future__ import annotations

import math

from fl_opt.errors import ConfigError


def check_at_least(least: float, **numbers: float) -> None:
    """Raise ConfigError unless all numbers are finite and at least ``least``."""
    for name, number in numbers.items():
        if not least <= number < math.inf:
            raise ConfigError(f"{name} = {number} is not a number of at least {least}")


def check_between(least: float, most: float, **numbers: float) -> None:
    """Raise ConfigError unless all numbers are in ``[least, most]``."""
    for name, number in numbers.items():
        if not least <= number <= most:
            raise ConfigError(f"{name} = {number} is not in [{least}, {most}]")
