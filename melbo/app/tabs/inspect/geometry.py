"""The Understand tab's geometry as HTML: heat maps, how many dimensions are filled, layers, contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from melbo.app.tabs.bank.css import text
from melbo.app.tabs.inspect.heat_map import MOST, heat_map, scale_bar
from melbo.app.widgets.chart import Line, chart, legend, some_ticks, x_axis
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.geometry.similarity import Geometry, Overlap

LIKE = 5
"""Most similar vectors that are named."""
_TABLES = (("Vectors", "vector_cosines"), ("Effects", "effect_cosines"), ("What the blocks add", "added_cosines"))


@dataclass(frozen=True)
class Rows:
    """The change at each layer after the source layer, for each vector of a bank."""

    layers: tuple[int, ...]
    norms: tuple[tuple[float, ...], ...]
    """[n][layers], norm of the change per norm of the vector."""
    cosines: tuple[tuple[float, ...], ...]
    """[n][layers], cosine of the change with the vector."""


def geometry_html(bank: VectorBank, index: int, found: Geometry, rows: Rows | None, origin: str) -> str:
    """The whole section; labels are those of `bank`, not of the file."""
    order = sorted(range(len(bank)), key=lambda i: (found.clusters[i], i))
    cut = f" The first {MOST} of {len(bank)} are shown." if len(bank) > MOST else ""
    head = (
        f"Cosines among {len(bank)} vectors, among their effects at layer {found.target_layer}, and among what the "
        f"blocks add to them (effect less vector). Rows and columns by cluster of the last; the ticks mark vector "
        f"{index}.{cut} {origin}"
    )
    maps = "".join(heat_map(name, getattr(found, table), order, index) for name, table in _TABLES)
    return (
        f'<p class="dim">{text(head)}</p><div class="maps">{maps}</div>{scale_bar()}'
        f'<div class="columns"><section>{_dimensions(found)}</section><section>{_like(bank, index, found)}</section>'
        f"</div>{_layers(index, found, rows)}{_overlaps(bank, index, found)}"
    )


def _dimensions(found: Geometry) -> str:
    p = found.participation
    rows = (("vectors", p["vectors"], None), ("effects", p["effects"], p["random effects"]),
            ("what the blocks add", p["added"], p["random added"]))  # fmt: skip
    body = "".join(
        f'<tr><td>{name}</td><td class="number">{own:.1f}</td><td class="number">'
        f"{'' if random is None else f'{random:.1f}'}</td></tr>"
        for name, own, random in rows
    )
    return (
        '<h4>Dimensions filled <small>participation ratio</small></h4><div class="plain"><table><thead><tr>'
        '<th scope="col">Directions</th><th scope="col" class="number">This bank</th>'
        '<th scope="col" class="number">Random</th>'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _like(bank: VectorBank, index: int, found: Geometry) -> str:
    """The vectors to which the blocks add most nearly the same."""
    own = found.added_cosines[index]
    others = sorted((i for i in range(len(bank)) if i != index), key=lambda i: -own[i])[:LIKE]
    if not others:
        return ""
    body = "".join(
        f'<tr><td>{i} · {text(bank.label(i), 80)}</td><td class="number">{own[i]:+.2f}</td>'
        f'<td class="number">{found.effect_cosines[index][i]:+.2f}</td></tr>'
        for i in others
    )
    cluster = found.clusters.count(found.clusters[index]) - 1
    return (
        f"<h4>Most like vector {index} <small>its cluster holds {cluster} others</small></h4>"
        '<div class="plain"><table><thead><tr><th scope="col">Vector</th><th scope="col" class="number">Added</th>'
        f'<th scope="col" class="number">Effect</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _layers(index: int, found: Geometry, rows: Rows | None) -> str:
    """Norm and cosine of the change at each later layer."""
    layers = [c.layer for c in found.layers]
    if not layers:
        return ""
    panels = (
        ("Norm of the change, per norm of the vector", "norm", rows.norms if rows else ()),
        ("Cosine of the change with the vector", "cosine", rows.cosines if rows else ()),
    )
    x = x_axis([float(layer) for layer in layers])
    figures = []
    for title, name, own in panels:
        random = [getattr(c, f"random_{name}") for c in found.layers]
        lines = [Line("random, mean", _points(layers, random), control=True)]
        if rows is None:
            lines.append(Line("bank, mean", _points(layers, [getattr(c, name) for c in found.layers]), level=True))
        else:
            middle = [median(row[k] for row in own) for k in range(len(layers))]
            lines += [Line("bank, median", _points(layers, middle), level=True),
                      Line(f"vector {index}", _points(layers, own[index]))]  # fmt: skip
        values = [y for line in lines for _, y in line.points]
        top, bottom = max(1.0, *values), min(0.0, *values)
        ticks = some_ticks([float(layer) for layer in layers], x)
        figures.append(chart(title, lines, x, top, ticks, x_name="layer", bottom=bottom))
    kinds = [("control", "random, mean"), ("level", "bank, mean" if rows is None else "bank, median")]
    kinds += [] if rows is None else [("trained", f"vector {index}")]
    return f'<div class="charts">{"".join(figures)}</div>{legend(kinds)}'


def _points(layers: Sequence[int], values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple((float(layer), value) for layer, value in zip(layers, values, strict=True))


def _overlaps(bank: VectorBank, index: int, found: Geometry) -> str:
    """Cosines with difference-of-means vectors of contrastive prompts."""
    if not found.overlaps:
        return ""
    ordered = sorted(found.overlaps, key=lambda o: -abs(o.cosines[index]))
    body = "".join(_overlap(bank, index, overlap) for overlap in ordered)
    return (
        f"<h4>Difference-of-means vectors <small>the best of {len(bank)} random directions reaches "
        f'{found.chance:.2f}</small></h4><div class="plain"><table><thead><tr><th scope="col">Contrast</th>'
        f'<th scope="col" class="number">Vector {index}</th><th scope="col" class="number">Best</th>'
        f'<th scope="col">By</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _overlap(bank: VectorBank, index: int, overlap: Overlap) -> str:
    best, cosine = overlap.best
    return (
        f'<tr><td>{text(overlap.name, 60)}</td><td class="number">{overlap.cosines[index]:+.2f}</td>'
        f'<td class="number">{cosine:+.2f}</td><td>{best}<span class="wide"> · '
        f"{text(bank.label(best), 60)}</span></td></tr>"
    )
