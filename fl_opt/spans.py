"""Nested spans: what a piece of work consists of, how long each part took, and its memory.

``with span("encode"):`` costs a lookup where nobody measures. :func:`measuring` makes a
:class:`SpanLog` the one that spans go to, for this thread and this context alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

MOST_SPANS: Final = 64
"""Most paths in one log, and most that are taken from another process."""

_Length = Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, lt=2**62)]


@dataclass
class SpanTotal:
    """All spans of one path.

    Attributes
    ----------
    path : str
        Names from the outermost span to this one, joined by ``/``.
    start : float
        When the first began, in seconds since the log did.
    seconds : float
        Of all of them.
    count : int
    memory_bytes : int
        How far they took the process beyond the most resident memory it had ever had: spans
        with more than 0 are those that its peak is made of. 0 on Windows.
    """

    path: Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$")]
    start: _Length
    seconds: _Length
    count: _Count
    memory_bytes: _Count


_TOTALS: Final = TypeAdapter(Annotated[list[SpanTotal], Field(max_length=MOST_SPANS)])


class SpanLog:
    """Adds spans up by their path, in the order in which the first of each began."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._totals: dict[str, SpanTotal] = {}
        self._begin = time.perf_counter()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Measure what happens inside; spans opened there are parts of this one.

        Parameters
        ----------
        name : str
            Of lower-case letters, digits and hyphens.
        """
        self._open.append(name)
        path = "/".join(self._open)
        peak = _peak_bytes()
        start = time.perf_counter()
        total = self._totals.get(path)
        if total is None and len(self._totals) < MOST_SPANS:
            total = self._totals[path] = SpanTotal(path, start - self._begin, 0.0, 0, 0)
        try:
            yield
        finally:
            self._open.pop()
            if total is not None:
                total.seconds += time.perf_counter() - start
                total.count += 1
                total.memory_bytes += max(_peak_bytes() - peak, 0)

    def take(self) -> list[SpanTotal]:
        """Return what there is and begin anew; spans that are open go on, uncounted."""
        totals, self._totals = list(self._totals.values()), {}
        self._begin = time.perf_counter()
        return totals


_current: ContextVar[SpanLog | None] = ContextVar("fl-opt-spans", default=None)


@contextmanager
def measuring(log: SpanLog | None) -> Iterator[None]:
    """Have spans inside go to a log; None: nobody measures there."""
    token = _current.set(log)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def span(name: str) -> Iterator[None]:
    """Measure what happens inside, if somebody wants to know; see :meth:`SpanLog.span`."""
    log = _current.get()
    if log is None:
        yield
        return
    with log.span(name):
        yield


def to_json(totals: list[SpanTotal]) -> str:
    """Return totals as they travel: a JSON list of objects."""
    rounded = [
        replace(total, start=round(total.start, 6), seconds=round(total.seconds, 6))
        for total in totals
    ]
    return _TOTALS.dump_json(rounded).decode()


def from_json(text: object) -> list[SpanTotal]:
    """Read what :func:`to_json` wrote; nothing where another process sent anything else."""
    if not isinstance(text, str):
        return []
    try:
        return _TOTALS.validate_json(text)
    except ValidationError:
        return []


def _peak_bytes() -> int:
    """Return the process' high-water mark; only by how much it rises is of interest.

    What is resident at a moment would say more, but to read it takes the system longer than
    many a span lasts.
    """
    if sys.platform == "win32":
        return 0
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
