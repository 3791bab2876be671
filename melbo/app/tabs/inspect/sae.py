"""The Understand tab's SAE features as HTML: each opens to its mark and its strongest examples. All text is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from melbo.app.tabs.bank.css import text
from melbo.inspect.stored import Decomposition, Feature, Neighbours

WARNING = "Compared are decoder directions: the encoder is made for activations, and misleads on a vector."
SHOWN = 8


def features_html(found: Neighbours, origin: str) -> str:
    """Nearest features, the vector as a sum of a few, and the features that steering changes."""
    signed = _share(found.signed)
    read = f", described with {found.corpus}" if found.corpus else ""
    head = f"{found.scale:g} × this vector and the features of the SAE {found.source}{read}. {WARNING} {origin}"
    sums = (
        f"<small>{_share(found.positive)}</small>",
        f'<p class="dim"><small>With coefficients of both signs: {signed}.</small></p>' if signed else "",
    )
    parts = (
        ("Nearest, by cosine", f"<small>random {found.random_nearest:.2f}</small>", found.nearest, "", 1.0),
        ("As a sum", sums[0], found.positive.features, sums[1], _largest(found.positive.features)),
        ("Changed by steering", "<small>at the prompts' last tokens</small>", found.changed, "",
         _largest(found.changed)),
    )  # fmt: skip
    columns = "".join(
        f"<section><h4>{name} {small}</h4>{_list(features, most)}{below}</section>"
        for name, small, features, below, most in parts
    )
    return f'<p class="dim">{text(head)}</p><div class="columns">{columns}</div>'


def _share(total: Decomposition) -> str:
    if total.explained is None:
        return ""
    random = "" if total.random is None else f", of a random direction {total.random:.0%}"
    return f"{len(total.features)} features explain {total.explained:.0%}{random}"


def _largest(features: Sequence[Feature]) -> float:
    return max((abs(f.weight) for f in features), default=1.0) or 1.0


def _list(features: Sequence[Feature], most: float) -> str:
    if not features:
        return '<p class="dim">None.</p>'
    return f'<ul class="features">{"".join(f"<li>{_feature(f, most)}</li>" for f in features[:SHOWN])}</ul>'


def _feature(feature: Feature, most: float) -> str:
    """One line: number, mark, size, weight; opens where something is known of the feature."""
    note = feature.note
    size = 100 * min(1.0, abs(feature.weight) / most)
    kind = ' class="below"' if feature.weight < 0 else ""
    mark = f'<span class="tag">{text(note.mark, 40)}</span>' if note is not None and note.mark else ""
    line = (
        f'<span class="name">{feature.number}</span><span class="what">{mark}</span>'
        f'<span class="size" aria-hidden="true"><i{kind} style="width:{size:.0f}%"></i></span>'
        f'<span class="number">{feature.weight:+.2f}</span>'
    )
    if note is None or not (note.examples or note.active):
        return f'<div class="alone">{line}</div>'
    lift = f", {note.lift:.1f} times as often {text(note.mark, 40)} as in the corpus" if note.mark else ""
    examples = "".join(f"<p>{_marked(example)}</p>" for example in note.examples)
    return (
        f'<details><summary>{line}</summary><div class="notes"><p class="dim">Active at {note.active:.1%} of the '
        f"positions{lift}.</p>{examples}</div></details>"
    )


def _marked(example: str) -> str:
    """An example whose place stands between >> and <<."""
    before, _, rest = example.partition(">>")
    place, found, after = rest.partition("<<")
    if not found:
        return text(example)
    return f"{html.escape(before[-600:])}<mark>{text(place, 80)}</mark>{html.escape(after[:600])}"
