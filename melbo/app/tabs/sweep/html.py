"""The R sweep tab's plot, summary and answers as HTML."""

from collections import Counter
from collections.abc import Callable, Sequence

from markupsafe import Markup

from melbo.app.render import render
from melbo.app.widgets.chart import Line, Mark, chart, charts, some_ticks, x_axis
from melbo.app.widgets.progress import empty_html, status_html
from melbo.radius_sweep.result import Arm
from melbo.radius_sweep.sweep import Sweep

EMPTY = (
    "No sweep yet. It trains a few vectors at each R, lets them answer, and measures the answers beside those of "
    "random vectors of the same norm."
)
MARKS = {"own": "this bank's", "suggested": "suggested", "calibrated": "calibrated"}


def plot_html(sweep: Sweep | None, chosen: int | None = None, own: float | None = None) -> Markup:
    """Four panels against R, trained and random, with the suggested and the calibrated R, and the bank's `own`."""
    if sweep is None:
        return empty_html(EMPTY)
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
    figures = [
        chart(title, _lines(sweep, value), x, top, some_ticks(radii, x), marks, picks) for title, value, top in panels
    ]
    legend = [("trained", "trained"), ("control", "random, same norm")]
    return charts(figures, legend + [(mark.kind, f"{MARKS[mark.kind]} R = {mark.x:.3g}") for mark in marks])


def _lines(sweep: Sweep, value: Callable[[Arm], float]) -> list[Line]:
    return [
        Line("random", tuple((row.radius, value(row.control)) for row in sweep.rows), control=True),
        Line("trained", tuple((row.radius, value(row.found)) for row in sweep.rows)),
    ]


def summary_html(sweep: Sweep, origin: str = "") -> Markup:
    """What the sweep says, in two sentences at most."""
    found = sweep.suggested
    lead = f"Suggested R = {found.radius:g}" if found.radius is not None else "No R suggested"
    state = "" if sweep.complete else f" {len(sweep.rows)} of {len(sweep.config.radii)} R are measured."
    text = f"{found.reason}.{state} {sweep.config.n_vectors} vectors at each R. {origin}"
    return status_html(f": {text.strip()}", lead)


def answers_html(sweep: Sweep | None, number: int | None) -> Markup:
    """The answers at one R, equal ones together, trained beside random."""
    if sweep is None or number is None or not 0 <= number < len(sweep.rows):
        return Markup()
    row, unsteered = sweep.rows[number], sweep.unsteered[0]
    arms = [
        (name, arm, sorted(Counter(arm.completions[0]).items(), key=lambda counted: counted[0] == unsteered))
        for name, arm in (("Trained", row.found), ("Random, same norm", row.control))
    ]
    return render("sweep/answers", asked=sweep.prompts[0][-1]["content"], unsteered=unsteered, arms=arms)
