"""Deep Gradient Compression: momentum that knows what has not been sent yet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fl_opt.codecs import SparseUpdate, Update
from fl_opt.codecs.update import Positions, Vector
from fl_opt.errors import ConfigError
from fl_opt.exchange.feedback.base import State

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Dgc:
    """Momentum correction, momentum factor masking and local clipping.

    Lin et al. 2018 (arXiv 1712.01887), Algorithm 4, for a codec that selects::

        g = clip(delta)
        u = momentum u + g          momentum correction: the momentum is accumulated,
        v = v + u                   not the gradient
        send v at the positions selected
        u, v = 0 there              momentum factor masking

    The masking is as written: a codec that also quantizes loses what it rounds off the entries
    it sends. An update that carries every entry delays nothing, and nothing of ``u`` is masked:
    a client then sends the terms of plain momentum SGD, as the authors' code does for tensors
    that it does not sparsify.

    The paper has one gradient from each of N nodes in each step, and its results are for that.
    Here ``g`` is what a client's whole local training changed, in place of a gradient times
    minus the learning rate, and ``u`` advances only in the rounds that a client takes part in.
    It is a momentum over a client's rounds, on top of that of its optimizer and the server's:
    nearest to the paper with ``train.local-steps = 1``, ``train.momentum = 0`` and every client
    in every round.

    Parameters
    ----------
    momentum : float
        In [0, 1).
    clip : float
        Largest L2 norm that the mean of all updates ought to have; 0: no clipping. In the paper
        nodes add up ``g / N`` and clip that to ``N^-1/2`` of the threshold, the norm at which N
        independent ones would add up to it. For the update itself this is ``N^1/2 clip``.
        N is the number of clients asked in the round (1 if that is not known).
    """

    momentum: float = 0.9
    clip: float = 0.0

    name: ClassVar[str] = "dgc"
    arrays: ClassVar[tuple[str, ...]] = ("momentum", "velocity")
    unsent: ClassVar[str] = "velocity"

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum = {self.momentum} is not in [0, 1)")
        if not 0.0 <= self.clip < math.inf:
            raise ConfigError(f"clip = {self.clip} is not a number from 0 up")

    def start(self, reference: Vector, state: State) -> Vector:
        """Return the reference."""
        return reference

    def before(
        self, delta: Vector, state: State, *, participants: int = 0
    ) -> tuple[Vector, State]:
        """Return ``v``, in ``delta``'s own memory, and ``u``."""
        if self.clip:
            _clip_norm(delta, self.clip * math.sqrt(max(1, participants)))
        if "momentum" not in state:
            return delta, {"momentum": delta.copy()}
        advanced = state["momentum"] * self.momentum
        advanced += delta
        return np.add(state["velocity"], advanced, out=delta), {"momentum": advanced}

    def after(self, vector: Vector, sent: Update, state: State) -> State:
        """Return ``u`` and ``v`` masked, in the memory of ``state`` and ``vector``."""
        momentum = state["momentum"]
        positions = _positions(sent)
        if positions is None:
            vector.fill(0.0)
        else:
            momentum[positions] = 0.0
            vector[positions] = 0.0
        return {"momentum": momentum, "velocity": vector}

    def take_back(self, sent: Update, state: State) -> State:
        """Return ``v + sent``; the momentum stays as it was masked."""
        if "velocity" not in state:
            return {"momentum": np.zeros(sent.size, np.float32), "velocity": sent.to_dense()}
        velocity = state["velocity"].copy()
        sent.add_to(velocity, 1.0)
        return {"momentum": state["momentum"], "velocity": velocity}


def _positions(sent: Update) -> Positions | None:
    """Where an update carries something; None for everywhere."""
    if sent.count == sent.size:
        return None
    if isinstance(sent, SparseUpdate):
        return sent.positions
    positions = np.flatnonzero(sent.to_dense())
    return None if positions.size == sent.size else positions


def _clip_norm(vector: Vector, bound: float) -> None:
    """Scale a vector down to an L2 norm, in place; one that is not finite is left alone."""
    chunks = (vector[i : i + _CHUNK] for i in range(0, vector.size, _CHUNK))
    norm = math.sqrt(sum(float(np.square(chunk, dtype=np.float64).sum()) for chunk in chunks))
    if bound < norm < math.inf:
        vector *= bound / norm
