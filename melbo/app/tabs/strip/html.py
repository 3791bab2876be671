"""A scale strip as escaped HTML: a band of cells, then a card for each scale."""

from __future__ import annotations

import html

from melbo.app.tabs.strip.handlers import Card, Kind, Strip

NAMES: dict[Kind, str] = {
    "unsteered": "unsteered",
    "same": "no change",
    "refusal": "refusal",
    "changed": "another answer",
    "salad": "word salad",
}
EMPTY = '<div class="strip-empty">One vector, from strongly negative to strongly positive. Press Run.</div>'


def strip_html(strip: Strip) -> str:
    """The whole strip."""
    cells = "".join(_cell(card, strip) for card in strip.cards)
    cards = "".join(_card(card, strip) for card in strip.cards)
    key = "".join(
        f'<span class="{kind}"><i aria-hidden="true"></i>{name}</span>'
        for kind, name in NAMES.items()
        if kind != "same"
    )
    words = ", ".join(_number(lo) if lo == hi else f"{_number(lo)} to {_number(hi)}" for lo, hi in strip.ranges)
    found = f"Usable on this prompt: {words}." if words else "No usable scale on this prompt."
    summary = found if strip.finished else "Writing…"
    return (
        f'<div class="band" aria-hidden="true">{cells}</div>'
        f'<div class="band-key"><b role="status">{summary}</b><div>{key if strip.finished else ""}</div></div>'
        f'<ol class="cards">{cards}</ol>'
    )


def _number(scale: float) -> str:
    """With its sign, a typographic one; 0 without."""
    return f"{scale:+g}".replace("-", "\N{MINUS SIGN}") if scale else "0"


def _name(card: Card, strip: Strip) -> str:
    return card.kind if strip.finished else "waiting"


def _inside(card: Card, strip: Strip) -> str:
    return " usable" if any(lo <= card.scale <= hi for lo, hi in strip.ranges) else ""


def _cell(card: Card, strip: Strip) -> str:
    return f'<div class="cell {_name(card, strip)}{_inside(card, strip)}">{_number(card.scale)}</div>'


def _card(card: Card, strip: Strip) -> str:
    kind = _name(card, strip)
    label = NAMES[card.kind] if strip.finished else "…"
    text = html.escape(card.text.strip()) or '<em class="quiet">(no words)</em>'
    return (
        f'<li class="card {kind}{_inside(card, strip)}">'
        f"<header><b>{_number(card.scale)}</b><span>{label}</span></header>"
        f"<p>{text}</p>{_footer(card, strip)}</li>"
    )


def _footer(card: Card, strip: Strip) -> str:
    if not strip.finished:
        return ""
    refusal = "refuses" if card.refusal else "no refusal"
    if card.coherence is None:
        return f"<footer><span>coherence unknown</span><span>{refusal}</span></footer>"
    meter = f'<i class="meter" aria-hidden="true"><i style="width:{10 * card.coherence:.0f}%"></i></i>'
    return f"<footer><span>coherence {card.coherence:.1f}</span>{meter}<span>{refusal}</span></footer>"
