"""What a chart shows, in numbers and in words; ``svg`` and ``png`` draw it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fl_opt.reporting.report.scale import Scale, linear, logarithmic

Point: TypeAlias = tuple[float, float]
Format: TypeAlias = Callable[[float], str]


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes
    ----------
    label : str
    written : callable
        A value as text.
    log, zero, whole : bool
        Logarithmic; from 0; with whole numbers beside it.
    """

    label: str
    written: Format
    log: bool = False
    zero: bool = False
    whole: bool = False

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        """Return its scale for values, from one place to another."""
        if self.log:
            return logarithmic(values, start, end)
        return linear(values, start, end, zero=self.zero, whole=self.whole)


@dataclass(frozen=True)
class Series:
    """Points of one line, under a name; one point alone is a dot."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class LineChart:
    """Lines over an axis.

    Attributes
    ----------
    title : str
    lines : sequence of Series
    across, up : Axis
    front : sequence of point
        To draw a dashed line through, such as those that nothing beats.
    """

    title: str
    lines: Sequence[Series]
    across: Axis
    up: Axis
    front: Sequence[Point] = ()

    @property
    def shown(self) -> list[Series]:
        """The lines without points that a logarithmic axis has no place for."""
        return [Series(line.name, self.places(line.points)) for line in self.lines]

    def places(self, points: Sequence[Point]) -> list[Point]:
        """Return the points that there is a place for."""
        return [
            (a, b)
            for a, b in points
            if (a > 0 or not self.across.log) and (b > 0 or not self.up.log)
        ]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not any(line.points for line in self.shown)

    @property
    def legend(self) -> list[str]:
        """Names, in the order of the colours."""
        return [line.name for line in self.lines]

    @property
    def about(self) -> str:
        """What stands for the picture."""
        ends = [
            f"{line.name} ends at {self.up.written(line.points[-1][1])}"
            for line in self.shown
            if line.points
        ]
        return f"{self.up.label} over {self.across.label}. {'; '.join(ends)}."

    @property
    def headings(self) -> list[str]:
        """Of the data."""
        return ["", self.across.label, self.up.label]

    @property
    def rows(self) -> list[list[str]]:
        """The data."""
        return [
            [line.name, self.across.written(a), self.up.written(b)]
            for line in self.shown
            for a, b in line.points
        ]


@dataclass(frozen=True)
class BarChart:
    """A bar for each name, stacked of parts that have the same colour in all bars."""

    title: str
    bars: Sequence[tuple[str, Mapping[str, float]]]
    axis: Axis

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not any(any(parts.values()) for _, parts in self.bars)

    @property
    def legend(self) -> list[str]:
        """Names of parts, in the order of the colours."""
        return list(dict.fromkeys(name for _, parts in self.bars for name in parts))

    @property
    def about(self) -> str:
        """What stands for the picture."""
        return "; ".join(
            f"{bar}: "
            + ", ".join(f"{name} {self.axis.written(value)}" for name, value in parts.items())
            for bar, parts in self.bars
        )

    @property
    def headings(self) -> list[str]:
        """Of the data."""
        return ["", *self.legend]

    @property
    def rows(self) -> list[list[str]]:
        """The data."""
        return [
            [bar, *(self.axis.written(parts[n]) if n in parts else "-" for n in self.legend)]
            for bar, parts in self.bars
        ]


Chart: TypeAlias = LineChart | BarChart
