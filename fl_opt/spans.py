"""Nested spans: what a piece of work consists of, how long each part took, and its memory.

``with span("encode"):`` costs a lookup where nobody measures. :func:`measuring` makes a
:class:`SpanLog` the one that spans go to, for this thread and this context alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

if sys.platform != "win32":
    import resource

MOST_SPANS: Final = 64
"""Most paths in one log, and most that are taken from another process."""

_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
_Length = Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)]
_Path = Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$")]
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

    path: _Path
    start: _Length
    seconds: _Length
    count: _Count
    memory_bytes: _Count


_ROWS: Final = TypeAdapter(
    Annotated[
        list[tuple[_Path, _Length, _Length, _Count, _Count]], Field(max_length=MOST_SPANS)
    ]
)


class SpanLog:
    """Adds spans up by their path, in the order in which the first of each began."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._totals: dict[str, SpanTotal] = {}
        self._begin = time.perf_counter()

    def span(self, name: str) -> AbstractContextManager[None]:
        """Measure what happens inside; spans opened there are parts of this one.

        Parameters
        ----------
        name : str
            Of lower-case letters, digits and hyphens.
        """
        return _OpenSpan(self, name)

    def take(self) -> list[SpanTotal]:
        """Return what there is and begin anew; spans that are open go on, uncounted."""
        totals, self._totals = list(self._totals.values()), {}
        self._begin = time.perf_counter()
        return totals

    def begin(self, name: str) -> SpanTotal | None:
        """Open a span; return where it is to be added, None if there are too many."""
        path = f"{self._open[-1]}/{name}" if self._open else name
        self._open.append(path)
        total = self._totals.get(path)
        if total is None and len(self._totals) < MOST_SPANS:
            start = time.perf_counter() - self._begin
            total = self._totals[path] = SpanTotal(path, start, 0.0, 0, 0)
        return total

    def end(self) -> None:
        """Close the span that was opened last."""
        self._open.pop()


class _OpenSpan:
    """A class and no generator: most spans are short, and those take twice as long."""

    __slots__ = ("_log", "_name", "_peak", "_start", "_total")

    def __init__(self, log: SpanLog, name: str) -> None:
        self._log = log
        self._name = name

    def __enter__(self) -> None:
        self._total = self._log.begin(self._name)
        self._peak = _peak_bytes()
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._start
        self._log.end()
        if (total := self._total) is not None:
            total.seconds += seconds
            total.count += 1
            total.memory_bytes += max(_peak_bytes() - self._peak, 0)


_current: ContextVar[SpanLog | None] = ContextVar("fl-opt-spans", default=None)
_NOT_MEASURED: Final = nullcontext()


@contextmanager
def measuring(log: SpanLog | None) -> Iterator[None]:
    """Have spans inside go to a log; None: nobody measures there."""
    token = _current.set(log)
    try:
        yield
    finally:
        _current.reset(token)


def span(name: str) -> AbstractContextManager[None]:
    """Measure what happens inside, if somebody wants to know; see :meth:`SpanLog.span`."""
    log = _current.get()
    return _NOT_MEASURED if log is None else _OpenSpan(log, name)


def to_json(totals: list[SpanTotal]) -> str:
    """Return totals as they travel: a JSON list of lists, in the order of the attributes."""
    return json.dumps(
        [
            (t.path, round(t.start, 6), round(t.seconds, 6), t.count, t.memory_bytes)
            for t in totals
        ],
        separators=(",", ":"),
    )


def from_json(text: object) -> list[SpanTotal]:
    """Read what :func:`to_json` wrote; nothing where another process sent anything else."""
    if not isinstance(text, str):
        return []
    try:
        return [SpanTotal(*row) for row in _ROWS.validate_json(text)]
    except ValidationError:
        return []


def _peak_bytes() -> int:
    """Return the process' high-water mark; only by how much it rises is of interest.

    What is resident at a moment would say more, but to read it takes the system longer than
    many a span lasts.
    """
    if sys.platform == "win32":
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
