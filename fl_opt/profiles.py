"""Profiles: codecs of both directions, under names that say what they are good for.

A setting whose value is ``"profile"``, or that is not given, is as the run's profile has it.
What suits clients depends on how often they come: where all take part in each round they keep
what a codec left out and send it later; where a few are drawn it would be too old by then, and
the model is averaged over rounds, since it swings from cohort to cohort.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

BY_PROFILE: Final = "profile"
"""The value that leaves a setting to the profile."""

ProfileName: TypeAlias = Literal["balanced", "smallest", "fastest", "exact"]
Values: TypeAlias = Mapping[str, str]

_FREQUENT: Final[Values] = {
    "uplink.feedback": "residual",
    "server-average": "none",
    "balance": "none",
}
_RARE: Final[Values] = {
    "uplink.feedback": "none",
    "server-average": "ema(0.8)",
    "balance": "none",
}
_PROFILES: Final[Mapping[ProfileName, Values]] = {
    "balanced": {
        "uplink.codec": "topk(0.02) | ternary",
        "downlink.mode": "auto",
        "downlink.codec": "ecsq(0.5)",
    },
    "smallest": {
        "uplink.codec": "topk(0.01) | ternary",
        "downlink.mode": "auto",
        "downlink.codec": "ecsq(0.35)",
    },
    "fastest": {
        "uplink.codec": "auto",
        "downlink.mode": "per-client",
        "downlink.codec": "auto",
        "balance": "equal-time",
    },
    "exact": {
        "uplink.codec": "none",
        "uplink.feedback": "none",
        "server-average": "none",
        "downlink.mode": "full",
        "downlink.codec": "fp32",
    },
}
PROFILE_KEYS: Final = (*_PROFILES["balanced"], *_FREQUENT)
"""The settings that a profile decides."""


def profile_values(name: ProfileName, *, sampled: bool) -> Values:
    """Return what a profile decides.

    Parameters
    ----------
    name : {"balanced", "smallest", "fastest", "exact"}
    sampled : bool
        Whether a part of the clients is drawn for each round.
    """
    return {**(_RARE if sampled else _FREQUENT), **_PROFILES[name]}
