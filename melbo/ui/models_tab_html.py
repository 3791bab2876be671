"""The tab Banks & models as HTML: lists of banks, facts. Everything that comes from a bank or the Hub is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from melbo.bank.listing import BankInfo
from melbo.models import LoadedModel
from melbo.ui.bank_tab_css import DIM
from melbo.ui.bank_tab_html import tags_html, text
from melbo.ui.models_tab_handlers import fits

HUB_EMPTY = '<p class="empty">Nothing is asked of the Hub until you press the button.</p>'
NONE = '<p class="empty">No bank with this tag is on the Hub yet.</p>'
NO_LOCAL = '<p class="empty">This installation has no folder of banks.</p>'
MAX_LABELS = 8
STYLE = (
    DIM
    + """
ul.banks { list-style: none; margin: 0; padding: 0; display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); }
ul.banks li { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .65rem .8rem; cursor: pointer;
  background: var(--block-background-fill); color: var(--body-text-color); margin: 0; }
ul.banks li:hover, ul.banks li:focus-visible { border-color: var(--primary-500); outline: none; }
ul.banks li.unfit { cursor: default; color: var(--body-text-color-subdued); background: transparent; }
ul.banks li.unfit:hover { border-color: var(--border-color-primary); }
ul.banks b { overflow-wrap: anywhere; font-weight: 600; }
.tag { display: inline-block; font-size: .75rem; padding: 0 .45rem; border-radius: 999px; margin: 0 .25rem .15rem 0;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color-subdued); }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .3rem 1rem; margin: 0; font-size: .9rem; }
dt { color: var(--body-text-color-subdued); }
dd { margin: 0; color: var(--body-text-color); overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
h4 { font-size: .9375rem; font-weight: 600; margin: 0 0 .5rem; color: var(--body-text-color); }
.card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .8rem 1rem; height: 100%;
  background: var(--block-background-fill); }
"""
)


def banks_html(infos: Sequence[BankInfo], loaded: LoadedModel, empty: str) -> str:
    """Banks as cards; those for this model can be clicked."""
    if not infos:
        return empty
    return f'<ul class="banks">{"".join(_bank(i, info, loaded) for i, info in enumerate(infos))}</ul>'


def _bank(place: int, info: BankInfo, loaded: LoadedModel) -> str:
    facts = [
        *([f"{info.n_vectors} vectors"] if info.n_vectors else []),
        *([info.method] if info.method else []),
        *([f"for {info.base_model}"] if info.base_model else []),
        *([f"block {info.source_layer}"] if info.source_layer is not None else []),
        *([f"{info.downloads:,} downloads"] if info.downloads is not None else []),
        *([f"commit {info.revision[:8]}"] if info.revision else []),
    ]
    usable = fits(info, loaded)
    note = "" if usable else f'<p class="dim">{text(_why_not(info), 300)}</p>'
    more = len(info.labels) - MAX_LABELS
    labels = tags_html(info.labels[:MAX_LABELS]) + (f'<span class="tag">+ {more}</span>' if more > 0 else "")
    press = f'data-pick="{place}" tabindex="0" role="button"' if usable else 'class="unfit"'
    return (
        f'<li {press} aria-label="{text(info.name, 120)}"><b>{text(info.name, 120)}</b>'
        f'<p class="dim">{text(" · ".join(facts), 300)}</p>{labels}{note}</li>'
    )


def _why_not(info: BankInfo) -> str:
    return info.problem if info.problem is not None else "Made for another model than this app's."


def facts_html(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Pairs of name and value under a title."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value, 300)}</dd>" for name, value in facts)
    return f'<div class="card"><h4>{text(title)}</h4><dl>{rows}</dl></div>'
