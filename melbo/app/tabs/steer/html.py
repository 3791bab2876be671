"""Small pieces of the Steer tab as escaped HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

from melbo.app.choices import MAX_SCALE, usable
from melbo.app.tabs.steer.handlers import caption
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.lens.token_change import TokenChange

FULL_COLOUR = 4.0
"""Change in nats at which a token gets the strongest colour."""
TITLES = {"vector": "Steered", "random": "Control", "prompt": "Instructed"}


def head_html(bank: VectorBank, settings: Settings | None) -> str:
    """The line above the right pane; the name alone where the settings cannot be read."""
    if settings is None:
        return '<div class="pane-head steered"><b>Steered</b></div>'
    what = html.escape(caption(bank, settings))
    return f'<div class="pane-head steered"><b>{TITLES[settings.side]}</b><span title="{what}">{what}</span></div>'


def note_html(text: str) -> str:
    """A curator's note, as text."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def range_html(bank: VectorBank, vector: int | None) -> str:
    """Where on the scale the vector is useful: in words, and as a bar under the slider."""
    if vector is None:
        return ""
    ranges = usable(bank, vector)
    if not ranges:
        return '<div class="range"><span>usable scales not measured</span></div>'
    words = ", ".join(f"{lo:g}" if lo == hi else f"{lo:g} to {hi:g}" for lo, hi in ranges)
    marks = "".join(f'<i style="left:{_percent(lo):.1f}%;width:{_width(lo, hi):.1f}%"></i>' for lo, hi in ranges)
    return f'<div class="range"><div class="bar" aria-hidden="true">{marks}</div><span>usable: {words}</span></div>'


def tokens_html(changes: Sequence[TokenChange]) -> str:
    """The answer with each token coloured by how much steering changed its probability."""
    if not changes:
        return '<div class="tokens"><p class="hint">Send a message to see its tokens here.</p></div>'
    spans = "".join(_token(change) for change in changes)
    key = (
        '<div class="key"><b>What steering changed</b><span class="less">less likely</span>'
        '<i aria-hidden="true"></i><span class="more">more likely</span></div>'
    )
    return f'<div class="tokens">{key}<p>{spans}</p></div>'


def _token(change: TokenChange) -> str:
    strength = min(1.0, abs(change.change) / FULL_COLOUR)
    name = "more" if change.change > 0 else "less"
    title = f"{change.unsteered:.1%} unsteered, {change.steered:.1%} steered"
    style = f"--s:{strength:.2f}" if strength >= 0.05 else "--s:0"
    return f'<span class="{name}" style="{style}" title="{title}">{html.escape(change.text)}</span>'


def _percent(scale: float) -> float:
    return 100 * (scale + MAX_SCALE) / (2 * MAX_SCALE)


def _width(lo: float, hi: float) -> float:
    return max(1.5, _percent(hi) - _percent(lo))
