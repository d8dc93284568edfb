"""How much waiting a round is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_opt.errors import CheckpointError


class Pacer:
    """Oort's pacer: waits for slower clients when what the faster ones bring gets less.

    Rounds are taken in windows. When the utilities of a window add up to less than those of the
    window before, the preferred duration of a round grows by a step. In the paper it is in
    seconds, and starts at one step. Here, as in the authors' program, it is a percentile of the
    clients' own durations, so that it needs no idea of how long a round takes.

    Parameters
    ----------
    percentile : float
        At first.
    step : float
        By which it grows, up to 100.
    window : int
        Rounds.

    Attributes
    ----------
    percentile : float
    """

    def __init__(self, percentile: float, step: float, window: int) -> None:
        self.percentile = percentile
        self._step = step
        self._rounds = window
        self._window = 0
        self._before = 0.0
        self._total = 0.0

    def add(self, server_round: int, utility: float) -> None:
        """Take in the utility of an update; late ones count for the window under way."""
        window = (server_round - 1) // self._rounds
        if window > self._window:
            if self._total < self._before:
                self.percentile = min(100.0, self.percentile + self._step)
            self._window, self._before, self._total = window, self._total, 0.0
        self._total += utility

    def state(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "percentile": self.percentile,
            "window": self._window,
            "before": self._before,
            "total": self._total,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned.

        Raises
        ------
        CheckpointError
            If it is something else.
        """
        try:
            self.percentile = float(values["percentile"])
            self._window = int(values["window"])
            self._before = float(values["before"])
            self._total = float(values["total"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"state of the pacer is damaged: {error!r}") from None
