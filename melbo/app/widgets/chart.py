"""Line charts as SVG, drawn with the page's own colours, so that they follow dark and light.

Trained is a full line with dots, the control a dashed one with open dots, and what both are held against a thin dotted
one: they can be told apart in grey. Each point has its numbers as a tooltip.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from melbo.app.render import render

WIDTH, HEIGHT = 540, 184
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 26, 28
LOG_FROM = 8.0
"""Ratio of the largest to the smallest x from which the axis is logarithmic."""


@dataclass(frozen=True)
class Line:
    """Points (x, y) with a name for tooltips."""

    name: str
    points: tuple[tuple[float, float], ...]
    control: bool = False
    dots: bool = True
    level: bool = False
    """What the others are held against, such as a median."""

    @property
    def kind(self) -> str:
        """Its class in the style sheet."""
        return "control" if self.control else "level" if self.level else "trained"


@dataclass(frozen=True)
class Mark:
    """A vertical line."""

    x: float
    kind: str
    """"suggested" or "calibrated"."""


@dataclass(frozen=True)
class Axis:
    """A range of numbers and where they lie in pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value."""
        low, high, v = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (v - low) / ((high - low) or 1.0) * (self.end - self.start)

    def cut(self, value: float) -> float:
        """The value, or the end of the axis that it lies beyond."""
        return min(max(value, self.low), self.high)


def x_axis(values: Sequence[float], width: int = WIDTH) -> Axis:
    """The axis of a chart's x values, logarithmic where they span a factor of LOG_FROM."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    log = low > 0 and high / low >= LOG_FROM
    if high == low:
        low, high = low - 0.5, high + 0.5
    return Axis(low, high, _LEFT, width - _RIGHT, log)


def chart(
    title: str,
    lines: Sequence[Line],
    x: Axis,
    top: float,
    ticks: Sequence[float],
    marks: Sequence[Mark] = (),
    picks: Sequence[tuple[float, bool]] = (),
    x_name: str = "R",
    height: int = HEIGHT,
    bottom: float = 0.0,
) -> Markup:
    """One panel as a <figure>.

    Args:
        top, bottom: largest and smallest y. Values beyond them are cut.
        ticks: labelled x values.
        picks: x values that can be clicked (`data-pick` holds the place), and whether each is the chosen one.
    """
    y = Axis(bottom, top, height - _BOTTOM, _TOP)
    levels = [bottom, bottom + 0.5 * (top - bottom), top]
    return render(
        "widgets/chart",
        title=title,
        lines=lines,
        x=x,
        y=y,
        rows=[(value, f"{value:,.0f}" if top > 100 else f"{value:.3g}") for value in levels],
        ticks=ticks,
        marks=[mark for mark in marks if x.low <= mark.x <= x.high],
        columns=_columns(picks, x),
        x_name=x_name,
        width=x.end + _RIGHT,
        height=height,
        spoken=_spoken(title, lines),
    )


def _columns(picks: Sequence[tuple[float, bool]], x: Axis) -> list[dict[str, float]]:
    """An invisible column around each point, that can be clicked or reached with the keyboard."""
    at = [x.at(value) for value, _ in picks]
    edges = [(a + b) / 2 for a, b in pairwise(at)]
    lefts, rights = [at[0] - 12, *edges] if at else [], [*edges, at[-1] + 12] if at else []
    return [
        {"value": value, "chosen": chosen, "left": left, "width": right - left}
        for (value, chosen), left, right in zip(picks, lefts, rights, strict=True)
    ]


def _spoken(title: str, lines: Sequence[Line]) -> str:
    """What a screen reader says: each line's first and last point."""
    ends = [
        f"{line.name} from {line.points[0][1]:.3g} at {line.points[0][0]:g} to {line.points[-1][1]:.3g} at "
        f"{line.points[-1][0]:g}"
        for line in lines
        if line.points
    ]
    return f"{title}: {'; '.join(ends) or 'no point yet'}"


def charts(figures: Sequence[Markup], legend: Sequence[tuple[str, str]] = ()) -> Markup:
    """Panels beside each other.

    Args:
        legend: pairs (kind of line, text), shown below.
    """
    return render("widgets/charts", figures=figures, legend=legend)


def some_ticks(values: Sequence[float], x: Axis, room: float = 46.0) -> list[float]:
    """Those of the values whose labels do not touch each other."""
    kept: list[float] = []
    for value in values:
        if not kept or x.at(value) - x.at(kept[-1]) >= room:
            kept.append(value)
    return kept
