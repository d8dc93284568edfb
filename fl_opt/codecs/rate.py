"""Rate control: a target size, and the setting of a codec that meets it.

``bits_per_parameter(0.05) | topk | ternary`` keeps as many entries as 0.05 bits for each
parameter pay for. The setting is found by encoding: what counts is the length of real payloads,
everything included.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from fl_opt.codecs.base import Codec, Encoder
from fl_opt.codecs.update import Layout, Vector
from fl_opt.errors import CodecError, ConfigError

TOLERANCE: Final = 0.98
"""A payload this close below the target is good enough."""
_MAX_TRIALS: Final = 24

KNOBS: Final[dict[str, tuple[float, float]]] = {
    "topk.density": (1e-9, 1.0),
    "randk.density": (1e-9, 1.0),
    "eden.bits": (1 / 64, 1.0),
}
"""Stage and argument that a target may set, and its range."""


class Target(Protocol):
    """A limit on the size of a payload."""

    name: ClassVar[str]

    def limit(self, size: int) -> int:
        """Return the largest number of bytes for a vector of ``size`` entries."""


@dataclass(frozen=True)
class BitsPerParameter:
    """At most this many bits for each entry of the vector, kept or not."""

    bits: float

    name: ClassVar[str] = "bits_per_parameter"

    def __post_init__(self) -> None:
        if not 0.0 < self.bits <= 32.0:
            raise ConfigError(f"bits = {self.bits} is not in (0, 32]")

    def limit(self, size: int) -> int:
        """Return ``floor(bits * size / 8)``."""
        return math.floor(self.bits * size / 8)


@dataclass(frozen=True)
class Bytes:
    """At most this many bytes in all."""

    count: int

    name: ClassVar[str] = "bytes"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count = {self.count} is not at least 1")

    def limit(self, size: int) -> int:
        """Return the number, whatever the vector's size."""
        return self.count


@dataclass(frozen=True)
class RatedCodec(Encoder):
    """Encodes to a target, by way of one setting of an ordinary codec.

    Raises
    ------
    ConfigError
        If the codec has no setting that goes on continuously from little to much.
    """

    spec: str
    target: Target
    codec: Codec

    def __post_init__(self) -> None:
        self._knob()

    def encode(
        self,
        vector: Vector,
        *,
        seed: int = 0,
        layout: Layout | None = None,
        names: Sequence[str] | None = None,
    ) -> bytes:
        """Encode to at most the target, and at least ``TOLERANCE`` of it if the vector allows.

        It may not: with every entry kept, or where single entries are a large part of the
        target, a payload can stay further below.

        Raises
        ------
        CodecError
            As :meth:`Encoder.encode`, and if not even the smallest payload meets the target.
        """
        limit = self.target.limit(vector.size)

        def attempt(setting: float) -> bytes:
            return self._at(setting).encode(vector, seed=seed, layout=layout)

        payload = _search(attempt, limit, *self._knob()[2])
        if payload is None:
            raise CodecError(
                f"{vector.size} entries cannot be coded as {self.codec} in {limit} bytes"
            )
        return payload

    def _knob(self) -> tuple[str, str, tuple[float, float]]:
        for role in ("selection", "quantizer"):
            stage = getattr(self.codec, role)
            for field in dataclasses.fields(stage):
                bounds = KNOBS.get(f"{stage.name}.{field.name}")
                if bounds is not None:
                    return role, field.name, bounds
        raise ConfigError(
            f"a target size needs a stage that it can set, one of "
            f"{', '.join(knob.partition('.')[0] for knob in KNOBS)}; "
            f"{str(self.codec)!r} has none"
        )

    def _at(self, setting: float) -> Codec:
        role, name, _ = self._knob()
        changed: dict[str, Any] = {name: setting}
        stage = dataclasses.replace(getattr(self.codec, role), **changed)
        return dataclasses.replace(self.codec, **{role: stage})


def _search(
    attempt: Callable[[float], bytes], limit: int, low: float, high: float
) -> bytes | None:
    """Return the longest payload found within the limit; None if there is none.

    Regula falsi on the logarithms of setting and length (the Illinois variant), which are
    nearly proportional; bisection where that stalls.
    """
    best = attempt(low)
    if len(best) > limit:
        return None
    whole = attempt(high)
    if len(whole) <= limit:
        return whole
    below, above = math.log(low), math.log(high)
    short, over = math.log(len(best) / limit), math.log(len(whole) / limit)
    aim = math.log((1.0 + TOLERANCE) / 2.0)
    for trial in range(_MAX_TRIALS):
        if len(best) >= TOLERANCE * limit:
            break
        share = (aim - short) / (over - short) if trial % 3 != 2 else 0.5
        middle = below + min(max(share, 0.02), 0.98) * (above - below)
        payload = attempt(math.exp(middle))
        if len(payload) <= limit:
            best = max(best, payload, key=len)
            below, short = middle, math.log(len(payload) / limit)
        else:
            above, over = middle, math.log(len(payload) / limit)
    return best
