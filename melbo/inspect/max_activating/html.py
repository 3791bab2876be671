"""Activating examples as one HTML page without outside parts: each token shaded by its value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melbo.inspect.max_activating.report import ActivatingReport, Direction, Example
from melbo.inspect.max_activating.table import best_values
from melbo.runs.templates import templates

FULL = 3.0
"""Spreads at which a token's shade is strongest."""
HEIGHT = 38
"""Pixels of the highest bar."""
_TEMPLATE = templates(Path(__file__).parent).get_template("page.html.jinja")


def page(report: ActivatingReport) -> str:
    """The whole page. All text of models, corpora and banks is escaped."""
    sections = list(map(_section, report.directions))
    return _TEMPLATE.render(report=report, random=best_values(report.control), sections=sections) + "\n"


def _section(d: Direction) -> dict[str, Any]:
    """A direction, its bars (bin, height) on a root scale, so that the tails can be seen, and its examples."""
    most = max(max(d.histogram), 1) ** 0.5
    bars = [(i, HEIGHT * n**0.5 / most) for i, n in enumerate(d.histogram) if n]
    return {"of": d, "bars": bars, "examples": [(e, _tokens(e, d.spread)) for e in d.examples]}


def _tokens(e: Example, spread: float) -> list[tuple[str, float, float]]:
    """Text, value in spreads and shade (0 to 0.7) of each token."""
    values = [v / spread for v in e.values]
    return [(text, v, min(abs(v) / FULL, 1.0) * 0.7) for text, v in zip(e.pieces, values, strict=True)]
