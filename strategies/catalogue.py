"""What there is to choose from, for people and programs that list it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fl_opt.codecs.catalogue import Argument, Choice, choices
from fl_opt.exchange.submodels import SUBMODELS
from strategies.averaging import AVERAGES
from strategies.balance import BALANCES
from strategies.norm_bound import NORM_BOUNDS
from strategies.pruning_rules import PRUNINGS
from strategies.schedule import SCHEDULES
from strategies.selection import SELECTIONS
from strategies.server_optimizer import SERVER_OPTIMIZERS
from strategies.specs import STRATEGIES
from strategies.staleness import STALENESS

__all__ = ["Argument", "Choice", "catalogue"]

_KINDS: Final[Mapping[str, Mapping[str, type]]] = {
    "strategy": STRATEGIES,
    "selection": SELECTIONS,
    "balance": BALANCES,
    "pruning": PRUNINGS,
    "submodels": SUBMODELS,
    "server-optimizer": SERVER_OPTIMIZERS,
    "server-schedule": SCHEDULES,
    "server-average": AVERAGES,
    "round.staleness": STALENESS,
    "round.max-update-norm": NORM_BOUNDS,
}
"""By the setting that names one of them in the run config."""


def catalogue() -> list[Choice]:
    """Return all choices, setting by setting."""
    return choices(_KINDS)
