"""Pruning on the server: weights that are taken out of the model while it is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.errors import CheckpointError, ConfigError, FlOptError
from fl_opt.exchange.coverage import Coverage
from fl_opt.params import ParamSpec
from strategies.pruning_rules import NO_PRUNING, Structured, build_pruning, prunable

Vector = NDArray[np.float32]

_logger = logging.getLogger(__name__)


class Pruning:
    """What is pruned, since which version of the model.

    Parameters
    ----------
    spec : str
        See :mod:`strategies.pruning_rules`.

    Raises
    ------
    ConfigError
        If the spec is wrong.
    """

    def __init__(self, spec: str) -> None:
        self._text = spec
        self._rule = build_pruning(spec)
        self._reached = 0.0
        self._history: dict[int, Coverage] = {}

    @property
    def alive(self) -> Coverage | None:
        """What is not pruned now; None: nothing is pruned."""
        return next(reversed(self._history.values()), None)

    def at(self, version: int) -> Coverage | None:
        """Return what was not pruned in a version of the model."""
        since = [first for first in self._history if first <= version]
        return self._history[since[-1]] if since else None

    def begin(self, spec: ParamSpec) -> None:
        """Begin with a model set from outside, of which nothing is pruned.

        Raises
        ------
        ConfigError
            If there is nothing in it that could be.
        """
        self._history.clear()
        self._reached = 0.0
        least = 2 if self._rule.name == Structured.name else 1
        if self._rule.name != NO_PRUNING and len(list(prunable(spec))) < least:
            raise ConfigError(
                f"pruning = {self._text!r}: the model has fewer than {least} array(s) of two "
                "or more dimensions"
            )

    def prune(self, server_round: int, spec: ParamSpec, vector: Vector, version: int) -> None:
        """Set what is pruned to zero, in place, and prune more where the schedule says so.

        Parameters
        ----------
        server_round : int
        spec : ParamSpec
        vector : ndarray of float32, shape (size,)
            The next model.
        version : int
            That it will have.
        """
        wanted = self._rule.sparsity(server_round)
        before = self.alive
        if wanted > self._reached:
            self._reached = wanted
            mask = np.ones(spec.size, np.bool_) if before is None else before.mask
            after = Coverage.of(self._rule.stays(spec, vector, mask, wanted) & mask)
            if after.bits != (before or Coverage.all_of(spec.size)).bits:
                self._history[version] = after
                _logger.info(
                    "round %d: %d of %d weights stay", server_round, after.count, after.size
                )
        if (alive := self.alive) is not None:
            alive.clear_others(vector)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what is pruned, as arrays by the version since which it is."""
        return {
            str(version): np.frombuffer(alive.bits, np.uint8)
            for version, alive in self._history.items()
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], size: int) -> None:
        """Go on from what :meth:`state` returned, for a model of ``size`` entries.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        try:
            masks = {int(key): Coverage(size, bits.tobytes()) for key, bits in arrays.items()}
        except (ValueError, FlOptError) as error:
            raise CheckpointError(f"state of the pruning is damaged: {error}") from None
        self._history = dict(sorted(masks.items()))
