"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "note", "fault"]
"""``note``: works, but something is slower or missing that a run may want."""


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes
    ----------
    area, name : str
        Such as ``data`` and ``fashion-mnist``.
    status : {"ok", "note", "fault"}
    found : str
        What is there.
    mend : str
        What to do about it; empty where nothing is to be done.
    """

    area: str
    name: str
    status: Status
    found: str
    mend: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return plain values, ready for JSON."""
        return asdict(self)


def worst(checks: Iterable[Check]) -> Status:
    """Return the worst status there is."""
    order: tuple[Status, ...] = ("ok", "note", "fault")
    return max((check.status for check in checks), key=order.index, default="ok")
