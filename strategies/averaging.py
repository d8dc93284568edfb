"""The model that is evaluated and returned: the last one, or an average of the last few.

Where a few clients are drawn for each round the global model swings from cohort to cohort. A
mean over rounds, which no client ever sees and which costs no byte, lies nearer to what they
have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import CheckpointError, ConfigError

Vector = NDArray[np.float32]


class AverageRule(Protocol):
    """How much a new model counts."""

    name: ClassVar[str]

    def weight(self, count: int) -> float:
        """Return the weight of the newest of ``count`` models in their average, above 0."""


@dataclass(frozen=True)
class NoAverage:
    """The last model alone."""

    name: ClassVar[str] = "none"

    def weight(self, count: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Ema:
    """Each model counts ``decay`` times as much as the one after it.

    Polyak and Juditsky 1992 average all iterates; with exponential weights, which forget the
    beginning, as in Tarvainen and Valpola 2017, "Mean teachers are better role models". The
    weights add up to one from the first round on.

    Parameters
    ----------
    decay : float
        From 0, below 1.
    """

    decay: float = 0.8

    name: ClassVar[str] = "ema"

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"decay = {self.decay} is not in [0, 1)")

    def weight(self, count: int) -> float:
        """Return ``(1 - decay) / (1 - decay^count)``."""
        return (1.0 - self.decay) / (1.0 - self.decay**count)


AVERAGES: Final[Mapping[str, type[AverageRule]]] = {
    kind.name: kind for kind in (NoAverage, Ema)
}


class ModelAverage:
    """Keeps the average of the models of a run.

    Parameters
    ----------
    spec : str
        A name of :data:`AVERAGES`, such as ``ema(0.8)``.

    Raises
    ------
    ConfigError
        If the spec is wrong.
    """

    def __init__(self, spec: str) -> None:
        self._rule = build_named(spec, "server average", AVERAGES)
        self._count = 0
        self._mean: Vector | None = None

    @property
    def vector(self) -> Vector | None:
        """The average; None where the last model is what counts."""
        return self._mean

    def begin(self) -> None:
        """Forget what was averaged: a model was set from outside."""
        self._count, self._mean = 0, None

    def add(self, vector: Vector) -> None:
        """Take in the model of one more round, float32 of shape (size,); it is only read."""
        if isinstance(self._rule, NoAverage):
            return
        self._count += 1
        if self._mean is None:
            self._mean = vector.copy()
        else:
            self._mean += np.float32(self._rule.weight(self._count)) * (vector - self._mean)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what later averages depend on."""
        if self._mean is None:
            return {}
        return {"mean": self._mean, "count": np.array([self._count], np.int64)}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]], size: int) -> None:
        """Go on from what :meth:`state` returned, of a model of so many entries.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        self.begin()
        if not arrays or isinstance(self._rule, NoAverage):
            return
        try:
            mean, count = arrays["mean"].astype(np.float32), int(arrays["count"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(f"state of the average is damaged: {error!r}") from None
        if mean.shape != (size,) or count < 1:
            raise CheckpointError(
                f"state of the average is damaged: shape {mean.shape}, count {count}"
            )
        self._mean, self._count = mean, count
