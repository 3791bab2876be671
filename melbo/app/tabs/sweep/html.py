"""The R sweep tab's plot, summary and answers as HTML. All text of models and visitors is escaped."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Sequence

from melbo.app.tabs.bank.css import DIM
from melbo.app.widgets.chart import CSS as CHART
from melbo.app.widgets.chart import Line, Mark, chart, legend, some_ticks, x_axis
from melbo.radius_sweep.result import Arm
from melbo.radius_sweep.sweep import Sweep

EMPTY = (
    '<p class="empty">No sweep yet. It trains a few vectors at each R, lets them answer, and measures the answers '
    "beside those of random vectors of the same norm.</p>"
)
MARKS = {"own": "this bank's", "suggested": "suggested", "calibrated": "calibrated"}
MAX_TEXT = 700
STYLE = (
    DIM
    + CHART
    + """
.charts .mark.own { stroke: var(--primary-500); stroke-dasharray: 7 4; }
.legend i.own { border-top: 2px dashed var(--primary-500); }
.bar { height: 4px; border-radius: 2px; background: var(--border-color-primary); overflow: hidden; margin: .2rem 0 0; }
.bar i { display: block; height: 100%; background: var(--primary-500); }
.told { margin: 0; font-size: .875rem; color: var(--body-text-color); }
.told b { font-weight: 600; }
.arms { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: .5rem 1rem; }
.arms h4 { font-size: .875rem; font-weight: 600; margin: .4rem 0 .4rem; color: var(--body-text-color); }
.arms h4 small { font-weight: 400; color: var(--body-text-color-subdued); }
.arms ul { list-style: none; margin: 0; padding: 0; }
.arms li { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .5rem .75rem; margin: 0 0 .4rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; line-height: 1.45; color: var(--body-text-color);
  background: var(--block-background-fill); display: flex; gap: .75rem; justify-content: space-between; }
.arms li.same { color: var(--body-text-color-subdued); background: transparent; border-style: dashed; }
.arms li small { color: var(--body-text-color-subdued); white-space: nowrap; font-variant-numeric: tabular-nums; }
"""
)


def plot_html(sweep: Sweep | None, chosen: int | None = None, own: float | None = None) -> str:
    """Four panels against R, trained and random, with the suggested and the calibrated R, and the bank's `own`."""
    if sweep is None:
        return EMPTY
    radii = sweep.config.radii
    x = x_axis(radii)
    known = (("own", own), ("suggested", sweep.suggested.radius), ("calibrated", sweep.auto_radius))
    marks = [Mark(radius, kind) for kind, radius in known if radius is not None and x.low <= radius <= x.high]
    picks = [(row.radius, i == chosen) for i, row in enumerate(sweep.rows)]
    panels: Sequence[tuple[str, Callable[[Arm], float], float]] = (
        ("Diversity of the answers", lambda arm: arm.diversity, 1.0),
        ("Coherence, 0 to 10", lambda arm: arm.coherence, 10.0),
        ("Share of refusals", lambda arm: arm.refusal, 1.0),
        ("Distinct answers, in effect", lambda arm: arm.distinct, float(sweep.config.n_vectors)),
    )
    figures = "".join(
        chart(title, _lines(sweep, value), x, top, some_ticks(radii, x), marks, picks) for title, value, top in panels
    )
    kinds = [("trained", "trained"), ("control", "random, same norm")]
    kinds += [(mark.kind, f"{MARKS[mark.kind]} R = {mark.x:.3g}") for mark in marks]
    return f'<div class="charts">{figures}</div>{legend(kinds)}'


def _lines(sweep: Sweep, value: Callable[[Arm], float]) -> list[Line]:
    return [
        Line("random", tuple((row.radius, value(row.control)) for row in sweep.rows), control=True),
        Line("trained", tuple((row.radius, value(row.found)) for row in sweep.rows)),
    ]


def summary_html(sweep: Sweep, origin: str = "") -> str:
    """What the sweep says, in two sentences at most."""
    found = sweep.suggested
    told = f"<b>Suggested R = {found.radius:g}</b>: " if found.radius is not None else "<b>No R suggested</b>: "
    state = "" if sweep.complete else f" {len(sweep.rows)} of {len(sweep.config.radii)} R are measured."
    text = f"{found.reason}.{state} {sweep.config.n_vectors} vectors at each R. {origin}"
    return f'<p class="told">{told}{html.escape(text.strip())}</p>'


def answers_html(sweep: Sweep | None, number: int | None) -> str:
    """The answers at one R, equal ones together, trained beside random."""
    if sweep is None or number is None or not 0 <= number < len(sweep.rows):
        return ""
    row = sweep.rows[number]
    asked = sweep.prompts[0][-1]["content"]
    return (
        f'<p class="dim">“{_text(asked)}” Unsteered: “{_text(sweep.unsteered[0])}”</p><div class="arms">'
        f"{_arm('Trained', row.found, sweep)}{_arm('Random, same norm', row.control, sweep)}</div>"
    )


def _arm(name: str, arm: Arm, sweep: Sweep) -> str:
    counts = Counter(arm.completions[0])
    order = sorted(counts, key=lambda text: text == sweep.unsteered[0])
    shown = "".join(_answer(text, counts[text], text == sweep.unsteered[0]) for text in order)
    numbers = f"coherence {arm.coherence:.1f}, refusals {arm.refusal:.0%}"
    return f"<section><h4>{name} <small>{numbers}</small></h4><ul>{shown}</ul></section>"


def _answer(text: str, count: int, same: bool) -> str:
    shown = "the unsteered answer" if same else _text(text) or "(empty)"
    return f"<li{' class=same' if same else ''}><span>{shown}</span><small>× {count}</small></li>"


def _text(text: str) -> str:
    return html.escape(text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…")
