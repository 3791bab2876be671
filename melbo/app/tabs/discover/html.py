"""The Discover tab's curve, layers and result as HTML."""

from markupsafe import Markup

from melbo.app.jobs.event import JobEvent, seconds_left
from melbo.app.render import render
from melbo.app.tabs.discover.handlers import METHOD_NAMES, Curve
from melbo.app.widgets.chart import Line, chart, charts, some_ticks, x_axis
from melbo.app.widgets.progress import progress_html, status_html
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.layers.atlas import LayerAtlas

EMPTY = (
    "Nothing is running. Start finds new vectors from your prompts, without any labels; the curve here shows how far "
    "they move the target layer."
)
POINTS = 240
"""Most points of the curve that are drawn."""


def layers_html(n_layers: int, source: int, target: int, atlas: LayerAtlas | None = None) -> Markup:
    """The model's depth with the chosen layers, and the atlas where there is one: how strongly each target answers to
    each source.
    """
    found = {} if atlas is None else {(pair.source, pair.target): pair.relative for pair in atlas.pairs}
    most = max(found.values(), default=1.0)
    return render("discover/layers", n_layers=n_layers, source=source, target=target, atlas=found, most=most)


def running_html(curve: Curve, what: str = "Training") -> Markup:
    """The objective so far, steps done, time left."""
    done = curve.points[-1][0] if curve.points else 0
    left = seconds_left(done, curve.total, curve.elapsed) if what == "Training" else None
    return progress_html(JobEvent(what, done, curve.total, left)) + curve_html(curve)


def curve_html(curve: Curve) -> Markup:
    """The mean objective against steps; "" before the second step."""
    if len(curve.points) < 2:
        return Markup()
    every = -(-len(curve.points) // POINTS)
    points = tuple((float(step), value) for step, value in (*curve.points[:-1:every], curve.points[-1]))
    x = x_axis([0.0, float(max(curve.total, points[-1][0]))])
    top = max(value for _, value in points) * 1.05 or 1.0
    ticks = some_ticks([round(x.high * i / 4) for i in range(5)], x)
    line = Line("objective", points, dots=False)
    return charts([chart("Mean objective", [line], x, top, ticks, x_name="step")])


def done_html(bank: VectorBank, curve: Curve) -> Markup:
    """What was found."""
    units = bank.radius / bank.mean_residual_norm
    text = (
        f" {len(bank)} vectors by {METHOD_NAMES.get(bank.config.method, bank.config.method)}, layers "
        f"{bank.config.source_layer} to {bank.config.target_layer}, R = {units:.2f} mean residual norms, "
        f"in {curve.elapsed:.1f} s. They are this page's bank now, in every tab."
    )
    return status_html(text, "Done.") + curve_html(curve)
