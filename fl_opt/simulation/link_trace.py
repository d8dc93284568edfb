"""A recorded link, from a CSV file.

The first line names the columns, in any order; each further line holds from its own time to the
time of the next one:

===============  ===========================================================================
``time-s``       seconds since the beginning: 0 in the first line, then increasing
``mbps``         bandwidth of both directions, in megabits (10^6 bits) a second; or, instead,
``uplink-mbps``  that of one direction,
``downlink-mbps``  and of the other
``latency-ms``   latency one way, in milliseconds
===============  ===========================================================================

What has no column is as the settings say. A bandwidth may be 0 for a while. The last line holds
as long as the line before it, then the file begins anew; a file of one line holds for ever.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias

from fl_opt.errors import ConfigError

TIME: Final = "time-s"
BOTH: Final = "mbps"
UPLINK: Final = "uplink-mbps"
DOWNLINK: Final = "downlink-mbps"
LATENCY: Final = "latency-ms"
COLUMNS: Final = (TIME, BOTH, UPLINK, DOWNLINK, LATENCY)

_LEAST_MEAN: Final = 1e-3
"""Megabits a second that a link has on average, so that every transfer comes to an end."""

Row: TypeAlias = tuple[float | None, float | None, float | None]
"""Uplink and downlink in Mbit/s, latency in seconds; None where the settings decide."""


@dataclass(frozen=True)
class LinkTrace:
    """What a file says of a link.

    Attributes
    ----------
    times : tuple of float
        Begin of each row in seconds, increasing from 0.
    rows : tuple of Row
        As many.
    period : float
        Seconds after which it begins anew.
    """

    times: tuple[float, ...]
    rows: tuple[Row, ...]
    period: float


def read_trace(path: Path | str) -> LinkTrace:
    """Read a trace.

    Raises
    ------
    ConfigError
        If there is no such file or it is wrong; file and line are named.
    """
    path = Path(path).expanduser()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"trace of a link {path}: not readable: {reason}") from None
    if len(lines) < 2:
        raise ConfigError(f"trace of a link {path}: a header and at least one line are needed")
    (number, header), *body = lines
    _check_header(path, number, header)
    times: list[float] = []
    rows: list[Row] = []
    for number, cells in body:
        values = _numbers(path, number, header, cells)
        _check_time(path, number, values[TIME], times)
        times.append(values[TIME])
        both, latency = values.get(BOTH), values.get(LATENCY)
        rows.append(
            (
                values.get(UPLINK, both),
                values.get(DOWNLINK, both),
                None if latency is None else latency / 1000.0,
            )
        )
    period = 2.0 * times[-1] - times[-2] if len(times) > 1 else 1.0
    _check_means(path, rows, [*times, period])
    return LinkTrace(tuple(times), tuple(rows), period)


def _check_header(path: Path, number: int, header: Sequence[str]) -> None:
    def refuse(reason: str) -> ConfigError:
        return _error(path, number, f"{reason}; columns are {', '.join(COLUMNS)}")

    for name in header:
        if name not in COLUMNS:
            raise refuse(f"unknown column {name!r}")
        if header.count(name) > 1:
            raise refuse(f"column {name!r} is there twice")
    if TIME not in header:
        raise refuse(f"no column {TIME!r}")
    directions = {UPLINK, DOWNLINK}.intersection(header)
    if BOTH in header and directions:
        raise refuse(f"{BOTH!r} is both directions, it does not go with {min(directions)!r}")
    if BOTH not in header and not directions:
        raise refuse("no column with a bandwidth")


def _numbers(
    path: Path, number: int, header: Sequence[str], cells: Sequence[str]
) -> dict[str, float]:
    if len(cells) != len(header):
        raise _error(path, number, f"{len(cells)} values for {len(header)} columns")
    values = {}
    for name, cell in zip(header, cells, strict=True):
        try:
            values[name] = float(cell)
        except ValueError:
            raise _error(path, number, f"{name} = {cell!r:.40} is not a number") from None
        if not 0.0 <= values[name] < math.inf:
            raise _error(path, number, f"{name} = {cell} is negative or not finite")
    return values


def _check_time(path: Path, number: int, time: float, before: Sequence[float]) -> None:
    if not before and time != 0.0:
        raise _error(path, number, f"{TIME} = {time:g}, in the first line it must be 0")
    if before and time <= before[-1]:
        raise _error(path, number, f"{TIME} = {time:g} is not after {before[-1]:g}")


def _check_means(path: Path, rows: Sequence[Row], ends: Sequence[float]) -> None:
    spans = [end - begin for begin, end in pairwise(ends)]
    for index, name in enumerate((UPLINK, DOWNLINK)):
        rates = [row[index] for row in rows]
        sent = math.fsum(
            rate * span for rate, span in zip(rates, spans, strict=True) if rate is not None
        )
        if None not in rates and sent < _LEAST_MEAN * math.fsum(spans):
            raise ConfigError(
                f"trace of a link {path}: {name} is less than {_LEAST_MEAN} on average, "
                "transfers would hardly end"
            )


def _error(path: Path, number: int, reason: str) -> ConfigError:
    return ConfigError(f"trace of a link {path}, line {number}: {reason}")
