"""Densities that fall over the first rounds: from a spec and a round to a spec.

A codec knows nothing of rounds. Whoever asks for an update names its codec each time, so a
schedule is a function of the spec that is wanted in the end and of the round.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from fl_opt.codecs.base import Codec
from fl_opt.codecs.spec import build_codec
from fl_opt.errors import ConfigError

DGC_DENSITIES: Final = (0.25, 0.0625, 0.015625, 0.004, 0.001)
"""Lin et al. 2018, "Deep gradient compression": sparsities of 75% to 99.9%."""


@dataclass(frozen=True)
class WarmUp:
    """Send more in the first rounds, when the model changes quickly.

    Parameters
    ----------
    densities : tuple of float
        One after the other, each in (0, 1]; those that are not above the spec's own density are
        passed over.
    rounds_each : int
        Rounds that each of them holds. The paper changes once an epoch.

    Raises
    ------
    ConfigError
        If a density or ``rounds_each`` is out of range.
    """

    densities: tuple[float, ...] = DGC_DENSITIES
    rounds_each: int = 1

    def __post_init__(self) -> None:
        if self.rounds_each < 1:
            raise ConfigError(f"rounds_each = {self.rounds_each} is not at least 1")
        for density in self.densities:
            if not 0.0 < density <= 1.0:
                raise ConfigError(f"density = {density} is not in (0, 1]")

    def spec_at(self, spec: str, server_round: int) -> str:
        """Return the codec spec for a round.

        Parameters
        ----------
        spec : str
            The spec after the warm-up, with a selection that has a density.
        server_round : int
            From 1.

        Raises
        ------
        ConfigError
            If the spec is wrong or has no density.
        """
        codec = build_codec(spec)
        stages: list[Any] = []
        if isinstance(codec, Codec):
            stages = [codec.selection, codec.quantizer, codec.coder]
        if not stages or not hasattr(stages[0], "density"):
            raise ConfigError(f"codec spec {spec!r} has no density that a warm-up could change")
        steps = [density for density in self.densities if density > stages[0].density]
        step = (server_round - 1) // self.rounds_each
        if step >= len(steps):
            return spec
        stages[0] = dataclasses.replace(stages[0], density=steps[step])
        return " | ".join(map(_describe, stages))


def _describe(stage: Any) -> str:
    """Write a stage the way that specs are written."""
    fields = dataclasses.fields(stage)
    arguments = ", ".join(f"{field.name}={getattr(stage, field.name)}" for field in fields)
    return f"{stage.name}({arguments})" if arguments else str(stage.name)
