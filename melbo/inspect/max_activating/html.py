"""Activating examples as one HTML page without outside parts: each token shaded by its value."""

from __future__ import annotations

from html import escape

from melbo.inspect.max_activating.report import ActivatingReport, Direction, Example
from melbo.inspect.max_activating.table import best_values

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --dim: #5c5c5c; --line: #d0d0d0; --up: 217 119 6; --down: 37 99 235 }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --dim: #a8a8a8; --line: #444; --up: 251 146 60;
  --down: 96 165 250 } body { background: #161616 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; border-top: 1px solid var(--line); padding-top: 1rem }
p.dim, td.number, .dim { color: var(--dim) } table { border-collapse: collapse; width: 100% }
td { vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid var(--line) }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .85rem }
.place { outline: 2px solid var(--ink); outline-offset: 1px; font-weight: 700 }
svg rect { fill: var(--dim) }
@media print { body { max-width: none; margin: 0; font-size: 10pt; background: #fff; color: #000 }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } section, tr { break-inside: avoid-page } }
"""


def page(report: ActivatingReport) -> str:
    """The whole page. All text of models, corpora and banks is escaped."""
    c = report.config
    what = "Effects of the vectors" if c.site == "effect" else "Vectors"
    random = best_values(report.control)
    control = (
        f"{len(report.control)} random directions reach {min(random):.1f} to {max(random):.1f} at best. "
        if random
        else ""
    )
    notes = "".join(f"<p class=dim>{escape(note)}.</p>" for note in report.notes)
    title = f"Activating examples: {report.model.id}"
    body = "\n".join(_section(d) for d in report.directions)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"<p>{what} at layer {report.layer} over {escape(report.corpus)}: {report.passages} passages, {report.tokens} "
        f"tokens, {report.positions} positions ({escape(c.where)}). Values are dot products of the centred activation "
        f"with the unit direction, in units of that direction's spread. {control}Orange tokens have values above, "
        f"blue ones below zero; the framed one is the place.</p>{notes}\n{body}\n</body></html>\n"
    )


def _section(d: Direction) -> str:
    marks = ", ".join(f"{escape(mark)} {count}" for mark, count in d.marks)
    rows = "\n".join(_row(e, d.spread) for e in d.examples)
    return (
        f"<section><h2>vector {d.index} × {d.sign:+d} <span class=dim>{escape(d.label)}</span></h2>"
        f"{f'<p class=dim>{marks}</p>' if marks else ''}{_histogram(d)}<table>{rows}</table></section>"
    )


def _row(e: Example, spread: float) -> str:
    shown = "".join(
        _token(text, v / spread, i == e.at) for i, (text, v) in enumerate(zip(e.pieces, e.values, strict=True))
    )
    mark = f"<br>{escape(e.mark)}" if e.mark else ""
    numbers = f"{e.value / spread:.1f}<br>cos {e.cosine:.2f}{mark}"
    return f"<tr><td class=number>{numbers}</td><td class=text>{shown}</td></tr>"


def _token(text: str, value: float, here: bool) -> str:
    strength = min(abs(value) / 3, 1.0) * 0.7
    color = f"background: rgb(var(--{'up' if value > 0 else 'down'}) / {strength:.2f})"
    kind = " class=place" if here else ""
    return f'<span{kind} style="{color}" title="{value:.2f}">{escape(text)}</span>'


def _histogram(d: Direction) -> str:
    """Bars on a root scale, so that the tails can be seen."""
    most = max(max(d.histogram), 1) ** 0.5
    bars = "".join(
        f'<rect x="{5 * i}" y="{40 - 38 * n**0.5 / most:.1f}" width="4" height="{38 * n**0.5 / most:.1f}"/>'
        for i, n in enumerate(d.histogram)
        if n
    )
    width = 5 * len(d.histogram)
    label = f"histogram of {sum(d.histogram)} values from -6 to 6 spreads, heights on a square-root scale"
    return f'<svg role="img" aria-label="{label}" width="{width}" height="40"><title>{label}</title>{bars}</svg>'
