"""What there is to choose from, for people and programs that list it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fl_opt.codecs.grammar import parameters, type_name
from fl_opt.exchange.submodels import SUBMODELS
from strategies.averaging import AVERAGES
from strategies.balance import BALANCES
from strategies.pruning_rules import PRUNINGS
from strategies.schedule import SCHEDULES
from strategies.selection import SELECTIONS
from strategies.server_optimizer import SERVER_OPTIMIZERS
from strategies.specs import STRATEGIES
from strategies.staleness import STALENESS

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
}
"""By the setting that names one of them in the run config."""


@dataclass(frozen=True)
class Argument:
    """What stands in the brackets of a spec.

    Attributes
    ----------
    name, type : str
    default : int, float, str or None
        None: it must be given.
    """

    name: str
    type: str
    default: int | float | str | None

    def __str__(self) -> str:
        """Write it as a signature does: ``rounds: int``, ``gamma: float = 0.5``."""
        default = "" if self.default is None else f" = {self.default}"
        return f"{self.name}: {self.type}{default}"


@dataclass(frozen=True)
class Choice:
    """Something that a setting may name.

    Attributes
    ----------
    setting, name : str
        Key in the run config, and what may stand there.
    about : str
        One sentence.
    arguments : tuple of Argument
        In the order in which they may be given without their names.
    """

    setting: str
    name: str
    about: str
    arguments: tuple[Argument, ...]


def catalogue() -> list[Choice]:
    """Return all choices, setting by setting."""
    return [
        Choice(setting, name, _about(kind), tuple(_arguments(kind)))
        for setting, kinds in _KINDS.items()
        for name, kind in kinds.items()
    ]


def _about(kind: type) -> str:
    """Return the first line of a docstring."""
    return (kind.__doc__ or "").partition("\n")[0].replace("``", "`")


def _arguments(kind: Any) -> Iterator[Argument]:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for name, hint in parameters(kind):
        default = defaults[name]
        given = None if default is dataclasses.MISSING else default
        yield Argument(name, type_name(hint), given)
