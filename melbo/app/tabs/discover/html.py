"""The Discover tab's curve, layers and result as HTML."""

from __future__ import annotations

import html

from melbo.app.jobs.event import JobEvent, seconds_left
from melbo.app.tabs.bank.css import DIM
from melbo.app.tabs.discover.handlers import METHOD_NAMES, Curve
from melbo.app.widgets.chart import CSS as CHART
from melbo.app.widgets.chart import Line, chart, some_ticks, x_axis
from melbo.app.widgets.progress import progress_html
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.layers.atlas import LayerAtlas

EMPTY = (
    '<p class="empty">Nothing is running. Start finds new vectors from your prompts, without any labels; '
    "the curve here shows how far they move the target layer.</p>"
)
POINTS = 240
"""Most points of the curve that are drawn."""
STYLE = (
    DIM
    + CHART
    + """
.charts svg { max-height: 260px; }
.bar { height: 4px; border-radius: 2px; background: var(--border-color-primary); overflow: hidden;
  margin: .2rem 0 .8rem; }
.bar i { display: block; height: 100%; background: var(--primary-500); }
.told { margin: 0; font-size: .9rem; color: var(--body-text-color); overflow-wrap: anywhere; }
"""
)
LAYERS = (
    DIM
    + """
.depth { display: flex; gap: 3px; margin: .1rem 0 .3rem; }
.depth span { flex: 1; min-width: 0; height: 26px; border-radius: 4px; display: grid; place-items: center;
  font-size: .75rem; color: var(--body-text-color-subdued); background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); overflow: hidden; }
.depth .between { background: color-mix(in srgb, var(--primary-500) 16%, transparent); }
.depth .end { background: var(--primary-600); color: #fff; border-color: var(--primary-600); font-weight: 600; }
.heat { border-collapse: separate; border-spacing: 2px; font-size: .6875rem; margin: .2rem 0; }
.heat th { font-weight: 500; color: var(--body-text-color-subdued); padding: 0 .2rem; text-align: center; }
.heat td { width: 30px; height: 22px; text-align: center; border-radius: 3px; color: var(--body-text-color);
  background: color-mix(in srgb, var(--primary-500) calc(var(--heat) * 1%), transparent); padding: 0; }
.heat td.chosen { outline: 2px solid var(--body-text-color); outline-offset: -1px; font-weight: 700; }
.scroll { overflow-x: auto; }
"""
)


def layers_html(n_layers: int, source: int, target: int, atlas: LayerAtlas | None = None) -> str:
    """The model's depth with the chosen layers, and the atlas where there is one."""
    named = n_layers <= 40
    blocks = "".join(
        f'<span class="{"end" if i in (source, target) else "between" if source < i < target else ""}">'
        f"{i if named or i in (source, target) else ''}</span>"
        for i in range(n_layers)
    )
    spoken = f"vectors are added after block {source}, activations compared after block {target}, of {n_layers}"
    return (
        f'<div class="depth" role="img" aria-label="{spoken}">{blocks}</div>'
        f'<p class="dim">Added after block {source}, compared after block {target}.</p>{_heat(atlas, source, target)}'
    )


def _heat(atlas: LayerAtlas | None, source: int, target: int) -> str:
    """The atlas as a table: how strongly each target answers to each source."""
    if atlas is None:
        return ""
    n, found = atlas.model.n_layers, {(p.source, p.target): p.relative for p in atlas.pairs}
    most = max(found.values())
    head = "".join(f'<th scope="col">{t}</th>' for t in range(1, n))
    rows = ""
    for s in range(n - 1):
        cells = ""
        for t in range(1, n):
            value = found.get((s, t))
            if value is None:
                cells += "<td style='--heat:0'></td>"
                continue
            chosen = ' class="chosen"' if (s, t) == (source, target) else ""
            cells += f'<td{chosen} style="--heat:{5 + 70 * value / most:.0f}">{value:.1f}</td>'
        rows += f'<tr><th scope="row">{s}</th>{cells}</tr>'
    return (
        '<div class="scroll"><table class="heat" aria-label="Layer atlas: relative sensitivity, source by target">'
        f"<tr><th>→</th>{head}</tr>{rows}</table></div>"
        '<p class="dim">Layer atlas: how strongly each layer (column) answers to each earlier one (row).</p>'
    )


def running_html(curve: Curve, what: str = "Training") -> str:
    """The objective so far, steps done, time left."""
    done = curve.points[-1][0] if curve.points else 0
    left = seconds_left(done, curve.total, curve.elapsed) if what == "Training" else None
    return progress_html(JobEvent(what, done, curve.total, left)) + curve_html(curve)


def curve_html(curve: Curve) -> str:
    """The mean objective against steps; "" before the second step."""
    if len(curve.points) < 2:
        return ""
    every = -(-len(curve.points) // POINTS)
    points = tuple((float(step), value) for step, value in (*curve.points[:-1:every], curve.points[-1]))
    x = x_axis([0.0, float(max(curve.total, points[-1][0]))])
    top = max(value for _, value in points) * 1.05 or 1.0
    ticks = some_ticks([round(x.high * i / 4) for i in range(5)], x)
    line = Line("objective", points, dots=False)
    return f'<div class="charts">{chart("Mean objective", [line], x, top, ticks, x_name="step")}</div>'


def done_html(bank: VectorBank, curve: Curve) -> str:
    """What was found."""
    units = bank.radius / bank.mean_residual_norm
    told = (
        f"{len(bank)} vectors by {METHOD_NAMES.get(bank.config.method, bank.config.method)}, layers "
        f"{bank.config.source_layer} to {bank.config.target_layer}, R = {units:.2f} mean residual norms, "
        f"in {curve.elapsed:.1f} s. They are this page's bank now, in every tab."
    )
    return f'<p class="told" role="status"><b>Done.</b> {html.escape(told)}</p>{curve_html(curve)}'
