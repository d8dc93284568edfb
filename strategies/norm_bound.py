"""The largest update that is believed: others are refused, and return to their clients.

One client that sends a huge update, broken or hostile, would undo the work of all. Its bytes
are in order, so that decoding does not find it; its size gives it away (Sun et al. 2019, "Can
you really backdoor federated learning?", bound norms for the same reason).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from fl_opt.codecs.grammar import build_named
from fl_opt.errors import CheckpointError, ConfigError, ExchangeError

_MEMORY: Final = 100
"""Norms of accepted updates that are remembered."""
_FEW: Final = 5
"""Fewer than that tell nothing yet."""


class NormRule(Protocol):
    """How large an update may be."""

    name: ClassVar[str]

    def largest(self, norms: Iterable[float]) -> float | None:
        """Return the bound, given the L2 norms of the last accepted updates; None: no bound."""


@dataclass(frozen=True)
class NoBound:
    """Updates of any size are taken."""

    name: ClassVar[str] = "none"

    def largest(self, norms: Iterable[float]) -> None:
        """Set no bound."""


@dataclass(frozen=True)
class Fixed:
    """Updates whose L2 norm is above a value are refused.

    Parameters
    ----------
    norm : float
        Above 0.
    """

    norm: float

    name: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        if not 0.0 < self.norm < float("inf"):
            raise ConfigError(f"norm = {self.norm} is not above 0")

    def largest(self, norms: Iterable[float]) -> float:
        """Return the value."""
        return self.norm


@dataclass(frozen=True)
class Auto:
    """Updates many times as large as the median of the last hundred accepted are refused.

    Parameters
    ----------
    factor : float
        Above 1.
    """

    factor: float = 10.0

    name: ClassVar[str] = "auto"

    def __post_init__(self) -> None:
        if not 1.0 < self.factor < float("inf"):
            raise ConfigError(f"factor = {self.factor} is not above 1")

    def largest(self, norms: Iterable[float]) -> float | None:
        """Return the bound, once five updates are known."""
        known = list(norms)
        return self.factor * statistics.median(known) if len(known) >= _FEW else None


NORM_BOUNDS: Final[Mapping[str, type[NormRule]]] = {
    kind.name: kind for kind in (NoBound, Auto, Fixed)
}


class NormBound:
    """Refuses updates that are too large, and learns from those that were taken.

    Parameters
    ----------
    spec : str
        A name of :data:`NORM_BOUNDS`, such as ``auto(factor=10)``.

    Raises
    ------
    ConfigError
        If the spec is wrong.
    """

    def __init__(self, spec: str) -> None:
        self._rule = build_named(spec, "update norm", NORM_BOUNDS)
        self._norms: deque[float] = deque(maxlen=_MEMORY)

    def check(self, norm: float) -> None:
        """Refuse an update by its L2 norm.

        Raises
        ------
        ExchangeError
            If it is too large.
        """
        largest = self._rule.largest(self._norms)
        if largest is not None and not norm <= largest:
            raise ExchangeError(
                f"the update's norm of {norm:.4g} is above {largest:.4g} "
                "(round.max-update-norm)"
            )

    def accepted(self, norm: float) -> None:
        """Learn from an update that was taken; of size 0 there is nothing to learn."""
        if norm > 0.0 and not isinstance(self._rule, NoBound):
            self._norms.append(norm)

    def state(self) -> list[float]:
        """Return what later bounds depend on, as plain values."""
        return list(self._norms)

    def restore(self, values: Iterable[float]) -> None:
        """Go on from what :meth:`state` returned.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        try:
            self._norms = deque(map(float, values), maxlen=_MEMORY)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"state of the norm bound is damaged: {error!r}") from None
