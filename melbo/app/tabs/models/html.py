"""The tab Banks & models as HTML: lists of banks, facts. Everything that comes from a bank or the Hub is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from melbo.app.context import Context
from melbo.app.render import stylesheet
from melbo.app.tabs.bank.html import tags_html, text
from melbo.app.tabs.models.handlers import fits
from melbo.bank.header import BaseModel
from melbo.bank.listing import BankInfo

HUB_EMPTY = '<p class="empty">Nothing is asked of the Hub until you press the button.</p>'
NONE = '<p class="empty">No bank with this tag is on the Hub yet.</p>'
NO_LOCAL = '<p class="empty">This installation has no folder of banks.</p>'
MAX_LABELS = 8
STYLE = stylesheet("text", "models")


def banks_html(infos: Sequence[BankInfo], context: Context, base: BaseModel, empty: str) -> str:
    """Banks as cards; those for this model, and for models that may be loaded, can be clicked.

    Args:
        base: the model of the visitor's bank.
    """
    if not infos:
        return empty
    return f'<ul class="banks">{"".join(_bank(i, info, context, base) for i, info in enumerate(infos))}</ul>'


def _bank(place: int, info: BankInfo, context: Context, base: BaseModel) -> str:
    facts = [
        *([f"{info.n_vectors} vectors"] if info.n_vectors else []),
        *([info.method] if info.method else []),
        *([f"for {info.base_model}"] if info.base_model else []),
        *([f"block {info.source_layer}"] if info.source_layer is not None else []),
        *([f"{info.downloads:,} downloads"] if info.downloads is not None else []),
        *([f"commit {info.revision[:8]}"] if info.revision else []),
    ]
    note, press = "", f'data-pick="{place}" tabindex="0" role="button"'
    if not fits(info, base):
        offered = info.problem is None and context.models.offers(info.base_model)
        note = f'<p class="{"load" if offered else "dim"}">{text(_offer(info, context, offered), 300)}</p>'
        press = press if offered else 'class="unfit"'
    more = len(info.labels) - MAX_LABELS
    labels = tags_html(info.labels[:MAX_LABELS]) + (f'<span class="tag">+ {more}</span>' if more > 0 else "")
    return (
        f'<li {press} aria-label="{text(info.name, 120)}"><b>{text(info.name, 120)}</b>'
        f'<p class="dim">{text(" · ".join(facts), 300)}</p>{labels}{note}</li>'
    )


def _offer(info: BankInfo, context: Context, offered: bool) -> str:
    """What a click does with a bank of another model, or why it cannot be clicked."""
    if info.problem is not None:
        return info.problem
    name = info.base_model or ""
    if not offered:
        return f"Made for {name}, which is not loaded here."
    return f"{'Use' if context.models.named(name) is not None else 'Load'} with {name}"


def facts_html(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Pairs of name and value under a title."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value, 300)}</dd>" for name, value in facts)
    return f'<div class="card"><h4>{text(title)}</h4><dl>{rows}</dl></div>'
