"""From the settings of a run to the arguments that strategies share."""

from __future__ import annotations

from typing import Any

from fl_opt.config import Settings, flat_settings
from fl_opt.errors import ConfigError
from strategies.pace import Rounds

Options = dict[str, Any]
"""Arguments of :class:`~strategies.base.CompressedStrategy` that all strategies share."""


def stepping(settings: Settings) -> Options:
    """Return what is done with the mean update."""
    return {
        "server_optimizer": settings.server_optimizer,
        "server_schedule": settings.server_schedule,
    }


def in_rounds(settings: Settings, options: Options) -> Options:
    """Return the options of a strategy that works in rounds.

    Raises
    ------
    ConfigError
        If rounds can never have the replies without which they change nothing.
    """
    rounds = settings.round
    if 0 < rounds.clients < rounds.min_replies:
        raise ConfigError(
            f"setting 'round.min-replies' = {rounds.min_replies}: no more replies than "
            f"'round.clients' = {rounds.clients} are waited for"
        )
    return {
        **options,
        "clients_per_round": rounds.clients or None,
        "late_replies": rounds.late_replies,
        "pace": Rounds(rounds.over_selection),
    }


def without_rounds(name: str, size: int, settings: Settings, options: Options) -> Options:
    """Return the options of a strategy that takes a step for every ``size`` updates.

    Raises
    ------
    ConfigError
        If a setting is of rounds, or wants more replies for a step.
    """
    reason = f"{name!r} has no rounds; see its own settings, buffer_size and max_concurrency"
    refuse(settings, reason, "round.clients", "round.over-selection", "round.late-replies")
    if settings.round.min_replies > size:
        raise ConfigError(
            f"setting 'round.min-replies' = {settings.round.min_replies}: {name!r} takes a "
            f"step for every {size}"
        )
    return options


def refuse(settings: Settings, reason: str, *keys: str) -> None:
    """Refuse settings that would have no effect, unless they are the default ones.

    Parameters
    ----------
    settings : Settings
    reason : str
        Why they would have none.
    *keys : str
        Of the run config.

    Raises
    ------
    ConfigError
        Names the setting, its value and the reason.
    """
    values, ordinary = dict(flat_settings(settings)), dict(flat_settings(Settings()))
    for key in keys:
        if values[key] != ordinary[key]:
            raise ConfigError(f"setting {key!r} = {values[key]!r}: {reason}")
