"""Line charts as SVG text, drawn with the page's own colours, so that they follow dark and light.

Trained is a full line with dots, the control a dashed one with open dots, and what both are held against a thin dotted
one: they can be told apart in grey. Each point has its numbers as a tooltip. All text is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 540, 184
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 26, 28
LOG_FROM = 8.0
"""Ratio of the largest to the smallest x from which the axis is logarithmic."""

CSS = """
.charts { margin-top: .6rem; display: grid; gap: .75rem 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); }
.charts figure { margin: 0; min-width: 0; }
.charts svg { width: 100%; height: auto; display: block; overflow: visible; }
.charts figcaption { font-size: .8125rem; font-weight: 600; margin: 0; color: var(--body-text-color); }
.charts text { font: 11px var(--font); fill: var(--body-text-color-subdued); }
@media (max-width: 640px) { .charts text { font-size: 16px; }
  .charts .x { transform: translateY(7px); } .charts figure { padding-bottom: 5px; } }
.charts .grid { stroke: var(--border-color-primary); stroke-width: 1; }
.charts .line { fill: none; stroke: var(--primary-500); stroke-width: 2; stroke-linejoin: round; }
.charts .dot { fill: var(--primary-500); }
.charts .control .line { stroke: var(--body-text-color-subdued); stroke-dasharray: 5 4; stroke-width: 1.5; }
.charts .control .dot { fill: var(--block-background-fill); stroke: var(--body-text-color-subdued); stroke-width: 1.5; }
.charts .level .line { stroke: var(--body-text-color); stroke-dasharray: 2 3; stroke-width: 1.5; }
.charts .level .dot { fill: var(--body-text-color); r: 2; }
.charts .mark { stroke-width: 1.5; }
.charts .mark.suggested { stroke: var(--refusal, #d97706); }
.charts .mark.calibrated { stroke: var(--body-text-color); stroke-dasharray: 2 3; }
.charts .hit { fill: transparent; cursor: pointer; }
.charts .hit:hover, .charts .hit:focus-visible { fill: var(--primary-500); fill-opacity: .14; outline: none; }
.charts .hit.chosen { fill: var(--primary-500); fill-opacity: .1; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .8125rem; margin: .25rem 0 0;
  color: var(--body-text-color-subdued); }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.legend i { width: 22px; height: 0; border-top: 2px solid var(--primary-500); }
.legend i.control { border-top: 2px dashed var(--body-text-color-subdued); }
.legend i.level { border-top: 2px dotted var(--body-text-color); }
.legend i.suggested { border-top: 2px solid var(--refusal, #d97706); }
.legend i.calibrated { border-top: 2px dotted var(--body-text-color); }
"""


@dataclass(frozen=True)
class Line:
    """Points (x, y) with a name for tooltips."""

    name: str
    points: tuple[tuple[float, float], ...]
    control: bool = False
    dots: bool = True
    level: bool = False
    """What the others are held against, such as a median."""


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
) -> str:
    """One panel as a <figure>.

    Args:
        top, bottom: largest and smallest y. Values beyond them are cut.
        ticks: labelled x values.
        picks: x values that can be clicked (`data-pick` holds the place), and whether each is the chosen one.
    """
    y = Axis(bottom, top, height - _BOTTOM, _TOP)
    body = [_grid(y, x), *(_tick(t, x, height) for t in ticks)]
    body += [f'<text class="x" x="{x.start - 20:.0f}" y="{height - 12}" text-anchor="end">{html.escape(x_name)}</text>']
    body += [
        f'<line class="mark {html.escape(m.kind)}" x1="{x.at(m.x):.1f}" x2="{x.at(m.x):.1f}" y1="{_TOP}" '
        f'y2="{height - _BOTTOM}"><title>{html.escape(m.kind)} {m.x:.3g}</title></line>'
        for m in marks
        if x.low <= m.x <= x.high
    ]
    body += [_line(line, x, y) for line in lines]
    body += [_pick(i, value, chosen, x, height, [p for p, _ in picks]) for i, (value, chosen) in enumerate(picks)]
    width = x.end + _RIGHT
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 12 {width:.0f} {height - 12}" '
        f'role="img" aria-label="{html.escape(_spoken(title, lines))}">{"".join(body)}</svg></figure>'
    )


def _grid(y: Axis, x: Axis) -> str:
    rows = []
    for share in (0.0, 0.5, 1.0):
        value = y.low + share * (y.high - y.low)
        at, label = y.at(value), f"{value:,.0f}" if y.high > 100 else f"{value:.3g}"
        rows.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        rows.append(f'<text x="{x.start - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(rows)


def _tick(value: float, x: Axis, height: int) -> str:
    return f'<text class="x" x="{x.at(value):.1f}" y="{height - 12}" text-anchor="middle">{value:g}</text>'


def _line(line: Line, x: Axis, y: Axis) -> str:
    places = [(x.at(a), y.at(min(max(b, y.low), y.high)), a, b) for a, b in line.points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _, _ in places)
    dots = "".join(
        f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="3.2"><title>{html.escape(line.name)} at {p:g}: {v:.3g}'
        "</title></circle>"
        for a, b, p, v in places
        if line.dots
    )
    kind = "control" if line.control else "level" if line.level else "trained"
    return f'<g class="{kind}"><polyline class="line" points="{path}"/>{dots}</g>'


def _pick(i: int, value: float, chosen: bool, x: Axis, height: int, values: Sequence[float]) -> str:
    """An invisible column around a point, that can be clicked or reached with the keyboard."""
    at = [x.at(v) for v in values]
    left = (at[i - 1] + at[i]) / 2 if i else at[i] - 12
    right = (at[i] + at[i + 1]) / 2 if i + 1 < len(at) else at[i] + 12
    return (
        f'<rect class="hit{" chosen" if chosen else ""}" data-pick="{i}" tabindex="0" role="button" '
        f'aria-label="Answers at {value:g}" x="{left:.1f}" width="{right - left:.1f}" y="{_TOP}" '
        f'height="{height - _BOTTOM - _TOP}"><title>Answers at {value:g}</title></rect>'
    )


def _spoken(title: str, lines: Sequence[Line]) -> str:
    """What a screen reader says: each line's first and last point."""
    ends = [
        f"{line.name} from {line.points[0][1]:.3g} at {line.points[0][0]:g} to {line.points[-1][1]:.3g} at "
        f"{line.points[-1][0]:g}"
        for line in lines
        if line.points
    ]
    return f"{title}: {'; '.join(ends) or 'no point yet'}"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Pairs (kind of line, text)."""
    shown = (f'<span><i class="{html.escape(kind)}"></i>{html.escape(text)}</span>' for kind, text in entries)
    return f'<p class="legend">{"".join(shown)}</p>'


def some_ticks(values: Sequence[float], x: Axis, room: float = 46.0) -> list[float]:
    """Those of the values whose labels do not touch each other."""
    kept: list[float] = []
    for value in values:
        if not kept or x.at(value) - x.at(kept[-1]) >= room:
            kept.append(value)
    return kept
