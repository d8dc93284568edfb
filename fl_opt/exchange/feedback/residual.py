"""Error feedback: what a lossy codec left out is added to the next update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fl_opt.codecs import Update
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError
from fl_opt.exchange.feedback.base import State


@dataclass(frozen=True)
class Residual:
    """Error feedback: ``v = delta + e``, send ``C(v)``, keep ``e = decay (v - C(v))``.

    Seide et al. 2014 ("1-bit stochastic gradient descent"), Stich et al. 2018 ("Sparsified SGD
    with memory"). The residual ``e`` is computed from the very payload that is sent: it holds
    what the server does not get, and without decay all that was sent and the residual add up to
    all that was learned. With decay it is the accumulator of SparseLoCo (Sarfi et al. 2025,
    arXiv 2508.15706), which lets the stale part of a residual die away.

    Parameters
    ----------
    decay : float
        Part of the residual that is carried on, in (0, 1].
    """

    decay: float = 1.0

    name: ClassVar[str] = "residual"
    arrays: ClassVar[tuple[str, ...]] = ("residual",)
    unsent: ClassVar[str] = "residual"

    def __post_init__(self) -> None:
        if not 0.0 < self.decay <= 1.0:
            raise ConfigError(f"decay = {self.decay} is not in (0, 1]")

    def start(self, reference: Vector, state: State) -> Vector:
        """Return the reference."""
        return reference

    def before(
        self, delta: Vector, state: State, *, participants: int = 0
    ) -> tuple[Vector, State]:
        """Return ``delta + e``, in ``delta``'s own memory."""
        return _carried(delta, state), {}

    def after(self, vector: Vector, sent: Update, state: State) -> State:
        """Return ``decay (vector - sent)``, in ``vector``'s own memory."""
        sent.add_to(vector, -1.0)
        if self.decay != 1.0:
            vector *= self.decay
        return {"residual": vector}

    def take_back(self, sent: Update, state: State) -> State:
        """Return ``e + decay sent``."""
        return {"residual": _added(state, sent, self.decay)}


@dataclass(frozen=True)
class StepAhead:
    """Step-ahead partial error feedback: training starts from ``w + alpha e``.

    The residual will reach the server sooner or later; training that already stands where a
    part of it will have led computes gradients that fit better. SA-PEF, Redie, Arablouei and
    Werner 2026 (arXiv 2601.20738), in whose released code a client sends ``C(u)`` and keeps
    ``u - C(u)``, for

        ``u = (trained - w) + (1 - alpha) e``.

    As training started from ``s = w + alpha e``, this is ``u = (trained - s) + e``: what was
    learned plus the whole residual. It is computed in this form, against the vector that
    training really started from, so that the rounding of ``s`` moves nothing between the two.
    ``alpha = 0`` is plain error feedback, ``alpha = 1`` the step-ahead error feedback of Xu,
    Huo and Huang 2020 (arXiv 2008.05823), without its averaging of residuals among clients.

    Parameters
    ----------
    alpha : float
        How far ahead, in [0, 1]. The authors use 0.85 for the top 1% at 10% participation.
    """

    alpha: float = 0.5

    name: ClassVar[str] = "step_ahead"
    arrays: ClassVar[tuple[str, ...]] = ("residual",)
    unsent: ClassVar[str] = "residual"

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"alpha = {self.alpha} is not in [0, 1]")

    def start(self, reference: Vector, state: State) -> Vector:
        """Return ``reference + alpha e``: a new vector, unless there is no residual."""
        if "residual" not in state:
            return reference
        ahead = state["residual"] * self.alpha
        ahead += reference
        return ahead

    def before(
        self, delta: Vector, state: State, *, participants: int = 0
    ) -> tuple[Vector, State]:
        """Return ``delta + e``, in ``delta``'s own memory."""
        return _carried(delta, state), {}

    def after(self, vector: Vector, sent: Update, state: State) -> State:
        """Return ``vector - sent``, in ``vector``'s own memory."""
        sent.add_to(vector, -1.0)
        return {"residual": vector}

    def take_back(self, sent: Update, state: State) -> State:
        """Return ``e + sent``."""
        return {"residual": _added(state, sent, 1.0)}


def _carried(delta: Vector, state: State) -> Vector:
    if "residual" in state:
        delta += state["residual"]
    return delta


def _added(state: State, sent: Update, weight: float) -> Vector:
    if "residual" not in state:
        return sent.to_dense() * np.float32(weight)
    residual = state["residual"].copy()
    sent.add_to(residual, weight)
    return residual
