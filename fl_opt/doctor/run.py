"""All checks, one after the other; one that breaks is a fault and does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fl_opt.config import Settings
from fl_opt.doctor.check import Check
from fl_opt.doctor.flower import flower
from fl_opt.doctor.software import software


def examine(settings: Settings) -> Iterator[Check]:
    """Look at software, machine, data and Flower's settings.

    Parameters
    ----------
    settings : Settings
        Whose folders and dataset to look at.

    Yields
    ------
    Check
    """
    yield from software()
    yield from _guarded("machine", _machine)
    yield from _guarded("data", lambda: _data(settings))
    yield from flower()


def _machine() -> Iterable[Check]:
    from fl_opt.doctor.machine import machine

    return machine()


def _data(settings: Settings) -> Iterable[Check]:
    from fl_opt.doctor.data import data

    return data(settings)


def _guarded(area: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Turn a package that cannot be imported into a fault: others were looked at before."""
    try:
        yield from look()
    except ImportError as error:
        yield Check(area, "checks", "fault", str(error), "mend the software first")
