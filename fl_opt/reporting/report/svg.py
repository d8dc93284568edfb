"""Charts as SVG whose colours come from the page, so that they fit light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from fl_opt.reporting.report.charts import Axis, BarChart, Chart, LineChart, Point
from fl_opt.reporting.report.scale import Scale, linear

COLOURS = 8
"""Classes ``c0`` to ``c7`` of the page's style."""

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 44
_NAMES = 90  # room for the names of bars
_BAR = 34


def draw_svg(chart: Chart) -> Markup:
    """Return a chart as an element of a page; its colours are classes of the page's style."""
    return _lines(chart) if isinstance(chart, LineChart) else _bars(chart)


def _lines(chart: LineChart) -> Markup:
    points = [point for line in chart.shown for point in line.points]
    x = chart.across.scale([a for a, _ in points], _LEFT, _WIDTH - _RIGHT)
    y = chart.up.scale([b for _, b in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [_across(x, chart.across, _HEIGHT - _BOTTOM), *_up(y, chart.up)]
    parts.append(_path(x, y, chart.places(chart.front), "front"))
    for number, line in enumerate(chart.shown):
        colour, size = f"c{number % COLOURS}", 2.6 if len(line.points) > 1 else 6.0
        parts.append(_path(x, y, line.points, f"line {colour}"))
        for a, b in line.points:
            says = f"{line.name}: {chart.across.written(a)}, {chart.up.written(b)}"
            parts.append(_dot(colour, x(a), y(b), says, size))
    return _svg(parts, chart.about, _HEIGHT)


def _bars(chart: BarChart) -> Markup:
    bottom = _TOP + _BAR * len(chart.bars)
    totals = [sum(parts.values()) for _, parts in chart.bars]
    x = linear(totals, _LEFT + _NAMES, _WIDTH - _RIGHT, zero=True)
    drawn = [_across(x, chart.axis, bottom)]
    for row, (bar, parts) in enumerate(chart.bars):
        top, start = _TOP + row * _BAR, 0.0
        drawn.append(_text(_LEFT + _NAMES - 8, top + 20, _short(bar), "end"))
        for name, value in parts.items():
            colour = f"c{chart.legend.index(name) % COLOURS}"
            says = f"{bar}: {name} {chart.axis.written(value)}"
            drawn.append(_box(colour, (x(start), x(start + value)), top, says))
            start += value
    return _svg(drawn, chart.about, bottom + _BOTTOM)


def _across(x: Scale, axis: Axis, bottom: float) -> Markup:
    parts = []
    for value in x.ticks():
        parts.append(_rule(x(value), _TOP, x(value), bottom))
        parts.append(_text(x(value), bottom + 18, axis.written(value), "middle"))
    parts.append(_text((x.start + x.end) / 2, bottom + 38, axis.label, "middle"))
    return Markup("").join(parts)


def _up(y: Scale, axis: Axis) -> list[Markup]:
    parts = []
    for value in y.ticks():
        parts.append(_rule(_LEFT, y(value), _WIDTH - _RIGHT, y(value)))
        parts.append(_text(_LEFT - 8, y(value) + 4, axis.written(value), "end"))
    return parts


def _path(x: Scale, y: Scale, points: Sequence[Point], style: str) -> Markup:
    places = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    return Markup('<polyline class="{}" points="{}"/>').format(style, places)


def _rule(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup(
        '<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    ).format(x1, y1, x2, y2)


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, words
    )


def _dot(colour: str, x: float, y: float, says: str, size: float) -> Markup:
    return Markup(
        '<circle class="fill {}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>'
    ).format(colour, x, y, size, says)


def _box(colour: str, across: tuple[float, float], top: float, says: str) -> Markup:
    return Markup(
        '<rect class="fill {}" x="{:.1f}" y="{}" width="{:.1f}" height="{}">'
        "<title>{}</title></rect>"
    ).format(colour, across[0], top + 4, across[1] - across[0], _BAR - 8, says)


def _svg(parts: Sequence[Markup], about: str, height: float) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        _WIDTH, height, about
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}\u2026"
