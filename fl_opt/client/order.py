"""The order of mods: whatever changes an update has to act before it is coded."""

from __future__ import annotations

import inspect

from fl_opt.errors import ConfigError

_CHANGE_UPDATES = (
    "flwr.clientapp.mod.centraldp_mods",
    "flwr.clientapp.mod.localdp_mod",
)
"""Flower's modules whose mods work on numbers, and would work on the bytes of a payload."""


def refuse_outer_mods() -> None:
    """Refuse to be called by a mod that would clip or blur a payload.

    A mod does not know which others there are. Those before it in the list have called it,
    though, and are on the stack.

    Raises
    ------
    ConfigError
        If one of Flower's mods for privacy comes before.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") in _CHANGE_UPDATES:
            caller = frame.f_locals.get("self")
            name = frame.f_code.co_name if caller is None else type(caller).__name__
            raise ConfigError(
                f"{name} comes before compression_mod in the list of mods and would change "
                "coded bytes: put compression_mod first"
            )
        frame = frame.f_back
