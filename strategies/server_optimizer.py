"""What the server does with the mean update: optimizers on flat float32 vectors.

The mean update ``d`` of a round is taken for a direction of descent, as in FedOpt (Reddi et al.
2021, "Adaptive federated optimization", arXiv 2003.00295). An optimizer holds settings only;
its state is handed in and returned::

    optimizer = build_server_optimizer("adam(eta=0.01)")
    state = optimizer.init(model.size)
    model, state = optimizer.apply(model, delta, state)

Flower's own classes differ in two points. Their second moments start at zero, where the paper
has ``v >= tau^2``. And Flower's FedAdam multiplies ``eta`` in round t by the correction of bias
``sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1))``, which the paper leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import ConfigError, ModelError

Vector = NDArray[np.float32]
State = dict[str, Vector]
"""Named float32 vectors, all of the model's size."""


class ServerOptimizer(Protocol):
    """A rule for the next model, and for what is remembered of earlier updates."""

    name: ClassVar[str]

    __dataclass_fields__: ClassVar[dict[str, Any]]  # one with other settings is made of it

    @property
    def eta(self) -> float:
        """The server's learning rate."""

    def init(self, size: int) -> State:
        """Return the state before the first round of a model of ``size`` entries."""

    def apply(self, model: Vector, delta: Vector, state: State) -> tuple[Vector, State]:
        """Take a step.

        Parameters
        ----------
        model : ndarray of float32, shape (size,)
            It is only read.
        delta : ndarray of float32, shape (size,)
            The mean update; it is overwritten. Entries up to 1e17 give finite results.
        state : dict of str to ndarray
            What ``init`` or the last ``apply`` returned; it is used up: its vectors are written
            to.

        Returns
        -------
        model : ndarray of float32, shape (size,)
            The next model, in memory of its own or in that of ``delta``.
        state : dict of str to ndarray

        Raises
        ------
        ModelError
            If sizes differ, or the state is another optimizer's; nothing has changed then.
        """


@dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum: ``v = momentum v + d``, ``w += eta v``.

    FedAvgM (Hsu et al. 2019, "Measuring the effects of non-identical data distribution",
    arXiv 1909.06335); with Nesterov's momentum ``w += eta (d + momentum v)``. The defaults are
    federated averaging: ``w + d``.

    Parameters
    ----------
    eta : float
        The server's learning rate, above 0.
    momentum : float
        In [0, 1).
    nesterov : int
        1: Nesterov's momentum; 0: the plain one.
    """

    eta: float = 1.0
    momentum: float = 0.0
    nesterov: int = 0

    name: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        _check_positive(eta=self.eta)
        _check_fraction(momentum=self.momentum)
        if self.nesterov not in (0, 1):
            raise ConfigError(f"nesterov = {self.nesterov} is neither 0 nor 1")
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov = 1 needs a momentum above 0")

    def init(self, size: int) -> State:
        """Return ``v = 0``, or nothing without momentum."""
        return {"v": np.zeros(size, np.float32)} if self.momentum else {}

    def apply(self, model: Vector, delta: Vector, state: State) -> tuple[Vector, State]:
        """Take a step; the next model is in ``delta``'s memory."""
        _check_sizes(self, model, delta, state)
        if self.momentum:
            v = state["v"]
            v *= self.momentum
            v += delta
            if self.nesterov:
                delta += self.momentum * v
            else:
                np.copyto(delta, v)
        return _advance(model, delta, self.eta), state


@dataclass(frozen=True)
class Adagrad:
    """FedAdagrad: ``v += d^2``, ``w += eta d / (sqrt(v) + tau)``.

    Parameters
    ----------
    eta : float
        The server's learning rate, above 0.
    tau : float
        How far from adaptive, above 0: entries of updates much smaller than that are scaled
        alike. ``v`` starts at ``tau^2``.
    """

    eta: float = 0.1
    tau: float = 0.001

    name: ClassVar[str] = "adagrad"

    def __post_init__(self) -> None:
        _check_positive(eta=self.eta, tau=self.tau)

    def init(self, size: int) -> State:
        """Return ``v = tau^2``."""
        return {"v": np.full(size, self.tau**2, np.float32)}

    def apply(self, model: Vector, delta: Vector, state: State) -> tuple[Vector, State]:
        """Take a step; needs one vector more."""
        _check_sizes(self, model, delta, state)
        v = state["v"]
        square = np.square(delta)
        v += square
        return _adaptive_step(model, delta, v, self.eta, self.tau, out=square), state


@dataclass(frozen=True)
class Adam:
    """FedAdam: ``v = beta_2 v + (1 - beta_2) d^2``, ``w += eta m / (sqrt(v) + tau)``.

    ``m = beta_1 m + (1 - beta_1) d``. There is no correction of bias, as in the paper.

    Parameters
    ----------
    eta : float
        The server's learning rate, above 0.
    beta_1, beta_2 : float
        How much of ``m`` and ``v`` is carried on, in [0, 1).
    tau : float
        How far from adaptive, above 0. ``v`` starts at ``tau^2``.
    """

    eta: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 0.001

    name: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        _check_positive(eta=self.eta, tau=self.tau)
        _check_fraction(beta_1=self.beta_1, beta_2=self.beta_2)

    def init(self, size: int) -> State:
        """Return ``m = 0`` and ``v = tau^2``."""
        return {"m": np.zeros(size, np.float32), "v": np.full(size, self.tau**2, np.float32)}

    def apply(self, model: Vector, delta: Vector, state: State) -> tuple[Vector, State]:
        """Take a step; needs one vector more."""
        _check_sizes(self, model, delta, state)
        m, v = state["m"], state["v"]
        square = np.square(delta)
        m *= self.beta_1
        delta *= 1.0 - self.beta_1
        m += delta
        self._follow(v, square, scratch=delta)
        return _adaptive_step(model, m, v, self.eta, self.tau, out=square), state

    def _follow(self, v: Vector, square: Vector, scratch: Vector) -> None:
        """Let ``v`` follow ``d^2``; uses up both other vectors."""
        v *= self.beta_2
        square *= 1.0 - self.beta_2
        v += square


@dataclass(frozen=True)
class Yogi(Adam):
    """FedYogi: Adam with ``v -= (1 - beta_2) d^2 sign(v - d^2)``.

    ``v`` falls by a part of ``d^2``, not of its own: after large updates it falls slowly when
    small ones follow, and steps do not grow all at once.
    """

    eta: float = 0.01

    name: ClassVar[str] = "yogi"

    def _follow(self, v: Vector, square: Vector, scratch: Vector) -> None:
        np.subtract(v, square, out=scratch)
        np.sign(scratch, out=scratch)
        square *= 1.0 - self.beta_2
        scratch *= square
        v -= scratch


SERVER_OPTIMIZERS: Final[dict[str, type[ServerOptimizer]]] = {
    kind.name: kind for kind in (Sgd, Adagrad, Adam, Yogi)
}


def build_server_optimizer(spec: str) -> ServerOptimizer:
    """Build the optimizer that a spec describes.

    Parameters
    ----------
    spec : str
        A name of :data:`SERVER_OPTIMIZERS` and its arguments, such as
        ``"sgd(eta=0.5, momentum=0.9)"``, in the grammar of :mod:`fl_opt.codecs.grammar`.

    Raises
    ------
    ConfigError
        Names the position in the spec (from 1) and the alternatives.
    """
    return build_named(spec, "server optimizer", SERVER_OPTIMIZERS)


def _adaptive_step(
    model: Vector, direction: Vector, v: Vector, eta: float, tau: float, *, out: Vector
) -> Vector:
    """Return ``w + eta direction / (sqrt(v) + tau)``, in ``out``'s memory."""
    np.sqrt(v, out=out)
    out += tau
    np.divide(direction, out, out=out)
    return _advance(model, out, eta)


def _advance(model: Vector, step: Vector, eta: float) -> Vector:
    """Return ``w + eta step``, in ``step``'s memory."""
    if eta != 1.0:
        step *= eta
    step += model
    return step


def _check_sizes(
    optimizer: ServerOptimizer, model: Vector, delta: Vector, state: Mapping[str, Vector]
) -> None:
    if delta.shape != model.shape:
        raise ModelError(f"update has shape {delta.shape}, the model {model.shape}")
    expected = dict.fromkeys(optimizer.init(0), model.shape)
    found = {name: vector.shape for name, vector in state.items()}
    if found != expected:
        raise ModelError(
            f"state of the server optimizer {optimizer.name!r} has {found or 'no vectors'}, "
            f"the model needs {expected or 'none'}"
        )


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0.0 < number < np.inf:
            raise ConfigError(f"{name} = {number} is not a number above 0")


def _check_fraction(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0.0 <= number < 1.0:
            raise ConfigError(f"{name} = {number} is not in [0, 1)")
