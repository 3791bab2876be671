"""The Inspect tab's sections as HTML: passages, features, tokens, one's own text, the model's words, geometry."""

from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from melbo.app.render import render
from melbo.app.tabs.inspect.handlers import Rows
from melbo.app.widgets.chart import Axis, Line, chart, charts, some_ticks, x_axis
from melbo.app.widgets.heat_map import MOST, heat_map, scale_bar
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.geometry.similarity import Geometry
from melbo.inspect.lens.logit_lens import LensReport
from melbo.inspect.lens.patchscope import Descriptions
from melbo.inspect.lens.token_activation import TextActivations
from melbo.inspect.max_activating.report import ActivatingReport, best_values
from melbo.inspect.max_activating.top_examples import BINS, SPAN
from melbo.inspect.stored import Decomposition, Feature, Neighbours

SHOWN = 3
"""Examples of a sign that show at once; the rest can be opened."""
FEATURES = 8
FULL = 4.0
"""Standard deviations at which a token has its strongest colour."""
STRONGEST = 5
TINY = 100_000_000
"""Parameters below which a model's own words mean nothing."""
LIKE = 5
"""Most similar vectors that are named."""
WARNING = "Compared are decoder directions: the encoder is made for activations, and misleads on a vector."
_WHERE = {"decision": "just before a chat's answer", "answer": "in a chat's answer", "all": "at any token"}
_SITES = {"effect": "Effect after the last block", "vector": "Direct path, past all blocks"}
_TABLES = (("Vectors", "vector_cosines"), ("Effects", "effect_cosines"), ("What the blocks add", "added_cosines"))


def examples_html(report: ActivatingReport, index: int, origin: str) -> Markup:
    """Both signs of a vector beside each other, with the random control's level.

    Args:
        origin: where the report is from, such as "Stored beside the bank.".
    """
    what = "the vector's effect" if report.config.site == "effect" else "the vector itself"
    notes = "".join(f"{note}. " for note in report.notes)
    head = (
        f"Passages of {report.corpus} where activations at layer {report.layer} lie most along {what}, "
        f"{_WHERE[report.config.where]}. Values are standard deviations; {report.positions:,} positions were read. "
        f"{notes}{origin}"
    )
    own = sorted((d for d in report.directions if d.index == index), key=lambda d: -d.sign)
    chance = best_values(report.control)
    return render(
        "inspect/passages",
        head=head,
        directions=[(direction, next(iter(best_values((direction,))), None)) for direction in own],
        chance=chance,
        level=sum(chance) / len(chance) if chance else None,
        alike=[direction.marks[0][1] for direction in report.control if direction.marks],
        shown=SHOWN,
        axis=Axis(-SPAN, SPAN, 0, 10 * BINS),
    )


def features_html(found: Neighbours, origin: str) -> Markup:
    """Nearest features, the vector as a sum of a few, and the features that steering changes."""
    read = f", described with {found.corpus}" if found.corpus else ""
    signed = _share(found.signed)
    remark = f"With coefficients of both signs: {signed}." if signed else ""
    summed, changed = found.positive.features[:FEATURES], found.changed[:FEATURES]
    parts = (
        ("Nearest, by cosine", f"random {found.random_nearest:.2f}", found.nearest[:FEATURES], 1.0, ""),
        ("As a sum", _share(found.positive), summed, _largest(found.positive.features), remark),
        ("Changed by steering", "at the prompts' last tokens", changed, _largest(found.changed), ""),
    )
    head = f"{found.scale:g} × this vector and the features of the SAE {found.source}{read}. {WARNING} {origin}"
    return render("inspect/features", head=head, parts=parts)


def _share(total: Decomposition) -> str:
    if total.explained is None:
        return ""
    random = "" if total.random is None else f", of a random direction {total.random:.0%}"
    return f"{len(total.features)} features explain {total.explained:.0%}{random}"


def _largest(features: Sequence[Feature]) -> float:
    return max((abs(f.weight) for f in features), default=1.0) or 1.0


def own_text_html(found: TextActivations, scale: float, random: bool) -> Markup:
    """One's own text with each token coloured by its activation along the vector, or along the random one."""
    tokens = [(token.text, token.random if random else token.value) for token in found.tokens]
    strongest = sorted(tokens, key=lambda token: -token[1])[:STRONGEST]
    what = "a random vector of the same norm" if random else "this vector"
    along = f"the effect of {scale:g} × {what}" if found.along == "effect" else f"{what}, × {scale:g}"
    return render("inspect/own_text", found=found, tokens=tokens, strongest=strongest, along=along, full=FULL)


def lens_html(reports: Sequence[LensReport], origin: str) -> Markup:
    """The tokens that a vector moves, by its effect and on its direct path, beside the random level."""
    return render("inspect/tokens", reports=reports, names=_SITES, origin=origin)


def descriptions_html(found: Descriptions, scale: float, parameters: int) -> Markup:
    """The model's words for the vector, beside those for nothing and for a random vector."""
    rows = (
        (f"This vector × {scale:g}", found.answers[0], True),
        ("Random, same length", found.random, False),
        ("The word X itself", found.unpatched, False),
    )
    return render("inspect/words", found=found, rows=rows, tiny=parameters < TINY)


def geometry_html(bank: VectorBank, index: int, found: Geometry, rows: Rows | None, origin: str) -> Markup:
    """The whole section; labels are those of `bank`, not of the file."""
    order = sorted(range(len(bank)), key=lambda i: (found.clusters[i], i))
    cut = f" The first {MOST} of {len(bank)} are shown." if len(bank) > MOST else ""
    head = (
        f"Cosines among {len(bank)} vectors, among their effects at layer {found.target_layer}, and among what the "
        f"blocks add to them (effect less vector). Rows and columns by cluster of the last; the ticks mark vector "
        f"{index}.{cut} {origin}"
    )
    filled, added = found.participation, found.added_cosines[index]
    others = (i for i in range(len(bank)) if i != index)
    return render(
        "inspect/geometry",
        head=head,
        maps=[heat_map(name, getattr(found, table), order, index) for name, table in _TABLES],
        bar=scale_bar(),
        dimensions=(
            ("vectors", filled["vectors"], None),
            ("effects", filled["effects"], filled["random effects"]),
            ("what the blocks add", filled["added"], filled["random added"]),
        ),
        similar=sorted(others, key=lambda i: -added[i])[:LIKE],
        alike=found.clusters.count(found.clusters[index]) - 1,
        layers=_layers(index, found, rows),
        overlaps=sorted(found.overlaps, key=lambda overlap: -abs(overlap.cosines[index])),
        bank=bank,
        index=index,
        found=found,
    )


def _layers(index: int, found: Geometry, rows: Rows | None) -> Markup:
    """Norm and cosine of the change at each later layer."""
    layers = [float(change.layer) for change in found.layers]
    if not layers:
        return Markup()
    x, figures = x_axis(layers), []
    for title, name, own in (
        ("Norm of the change, per norm of the vector", "norm", rows.norms if rows else ()),
        ("Cosine of the change with the vector", "cosine", rows.cosines if rows else ()),
    ):
        random, bank = ([getattr(c, f"{kind}{name}") for c in found.layers] for kind in ("random_", ""))
        middle = [median(row[k] for row in own) for k in range(len(layers))] if own else bank
        lines = [
            Line("random, mean", _points(layers, random), control=True),
            Line("bank, median" if own else "bank, mean", _points(layers, middle), level=True),
            *([Line(f"vector {index}", _points(layers, own[index]))] if own else []),
        ]
        values = [y for line in lines for _, y in line.points]
        top, bottom = max(1.0, *values), min(0.0, *values)
        figures.append(chart(title, lines, x, top, some_ticks(layers, x), x_name="layer", bottom=bottom))
    return charts(figures, [(line.kind, line.name) for line in lines])


def _points(layers: Sequence[float], values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(layers, values, strict=True))
