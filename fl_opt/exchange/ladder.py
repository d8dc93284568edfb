"""Codecs from lean to rich, among which one is chosen for each client.

``uplink.codec = "auto(leanest=0.005, richest=0.08)"`` stands for ``topk(p) | ternary`` with p
from the leanest share to the richest, each twice the one before. ``downlink.codec =
"auto(leanest=0.25, richest=2.0)"`` stands for ``ecsq(b)`` with so many bits a parameter. Where
both are auto a client gets the same level of both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Final

from fl_opt.codecs import build_codec
from fl_opt.codecs.grammar import build_named
from fl_opt.errors import ConfigError

AUTO: Final = "auto"
ORDINARY_SHARE: Final = 0.02
ORDINARY_BITS: Final = 1.0


@dataclass(frozen=True)
class AutoUplink:
    """Shares of entries that a client may be told to send.

    Parameters
    ----------
    leanest, richest : float
        In (0, 0.5].
    energy : float
        Share of an update's energy, its squared L2 norm, that what is sent has to hold on
        average; levels that hold less are not used. From 0 to 0.9.
    slack : float
        Share by which a round may take longer than with the leanest level for all, from 0
        to 10.
    """

    leanest: float = 0.005
    richest: float = 0.08
    energy: float = 0.0
    slack: float = 0.1

    name: ClassVar[str] = AUTO

    def __post_init__(self) -> None:
        _check_range("uplink", self.leanest, self.richest, 0.5)
        if not 0.0 <= self.energy <= 0.9:
            raise ConfigError(f"energy = {self.energy} is not from 0 to 0.9")
        if not 0.0 <= self.slack <= 10.0:
            raise ConfigError(f"slack = {self.slack} is not from 0 to 10")


@dataclass(frozen=True)
class AutoBits:
    """Bits a parameter of the difference that a client may be sent.

    Parameters
    ----------
    leanest, richest : float
        In (0, 8].
    """

    leanest: float = 0.25
    richest: float = 2.0

    name: ClassVar[str] = AUTO

    def __post_init__(self) -> None:
        _check_range("downlink", self.leanest, self.richest, 8.0)


@dataclass(frozen=True)
class Level:
    """A codec for each direction.

    Attributes
    ----------
    up : str
        Spec of what the client sends.
    down : str or None
        Spec of the difference that it is sent; None: that of the downlink.
    bits_up, bits_down : float or None
        Bits a parameter to expect; None where the codec is the same for all levels.
    """

    up: str
    down: str | None
    bits_up: float | None
    bits_down: float | None


@dataclass(frozen=True)
class Ladder:
    """Levels from the leanest to the richest.

    Attributes
    ----------
    levels : tuple of Level
    ordinary : int
        The level of a client of whom nothing is known.
    energy, slack : float
        See :class:`AutoUplink`.
    """

    levels: tuple[Level, ...]
    ordinary: int
    energy: float
    slack: float


def is_auto(spec: str) -> bool:
    """Whether a spec leaves the codec to be chosen."""
    return re.match(r"\s*auto(?![\w-])", spec) is not None


def build_ladder(uplink: str, downlink: str) -> Ladder | None:
    """Return the levels that two specs stand for; None where neither is auto.

    Raises
    ------
    ConfigError
        If a spec is wrong.
    """
    if not is_auto(uplink) and not is_auto(downlink):
        return None
    rule = build_named(uplink, "uplink codec", {AUTO: AutoUplink}) if is_auto(uplink) else None
    bits = (
        build_named(downlink, "downlink codec", {AUTO: AutoBits}) if is_auto(downlink) else None
    )
    ranges = [(r.leanest, r.richest) for r in (rule, bits) if r is not None]
    count = 1 + max(math.ceil(math.log2(rich / lean) - 1e-9) for lean, rich in ranges)
    levels = tuple(_level(k, count, uplink, rule, bits) for k in range(count))
    for level in levels:
        build_codec(level.up)
    wanted = _ordinary(rule, bits)
    ordinary = min(range(count), key=lambda k: abs(math.log(_key(levels[k], rule) / wanted)))
    rule = rule or AutoUplink()
    return Ladder(levels, ordinary, rule.energy, rule.slack)


def _level(
    k: int, count: int, uplink: str, rule: AutoUplink | None, bits: AutoBits | None
) -> Level:
    share = _between(rule.leanest, rule.richest, k, count) if rule is not None else None
    rate = _between(bits.leanest, bits.richest, k, count) if bits is not None else None
    return Level(
        up=f"topk({share:.6g}) | ternary" if share is not None else uplink,
        down=None if rate is None else f"ecsq({rate:.6g})",
        bits_up=None if share is None else _ternary_bits(share),
        bits_down=rate,
    )


def _between(lean: float, rich: float, k: int, count: int) -> float:
    if count == 1:
        return rich
    return float(lean * (rich / lean) ** (k / (count - 1)))


def _ternary_bits(p: float) -> float:
    """Return the entropy of positions and signs, in bits a parameter."""
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p) + p


def _ordinary(rule: AutoUplink | None, bits: AutoBits | None) -> float:
    return _ternary_bits(ORDINARY_SHARE) if rule is not None or bits is None else ORDINARY_BITS


def _key(level: Level, rule: AutoUplink | None) -> float:
    value = level.bits_up if rule is not None else level.bits_down
    assert value is not None  # noqa: S101 -- one of the two directions is auto
    return value


def _check_range(direction: str, leanest: float, richest: float, most: float) -> None:
    if not 0.0 < leanest <= richest <= most:
        raise ConfigError(
            f"{direction} codec auto: leanest = {leanest} and richest = {richest} are not in "
            f"(0, {most:g}], in this order"
        )
