"""Numbers for people: three digits and a unit."""

from __future__ import annotations

_BYTE_UNITS = ("kB", "MB", "GB", "TB")


def format_bytes(count: float) -> str:
    """Write a number of bytes in decimal units: ``999 B``, ``1.23 kB``, ``45.6 MB``."""
    if count < 1000:
        return f"{count:.0f} B"
    power = 0
    while count >= 999.5 and power < len(_BYTE_UNITS):  # 999.5 would be shown as 1000
        count /= 1000
        power += 1
    return f"{_three_digits(count)} {_BYTE_UNITS[power - 1]}"


def format_seconds(seconds: float) -> str:
    """Write a duration: ``31 ms``, ``1.25 s``, ``3 min 20 s``, ``1 h 02 min``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def format_ratio(ratio: float | None) -> str:
    """Write a compression ratio: ``52.3x``, ``1,155x``, or a dash where there is none."""
    return "-" if ratio is None else f"{_three_digits(ratio)}x"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")
