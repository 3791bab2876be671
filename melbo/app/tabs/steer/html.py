"""Small pieces of the Steer tab as HTML."""

from collections.abc import Sequence

from melbo.app.choices import ranges_text, scale_limit, usable
from melbo.app.render import render
from melbo.app.tabs.steer.handlers import caption
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.lens.token_change import TokenChange

FULL_COLOUR = 4.0
"""Change in nats at which a token gets the strongest colour."""
FAINTEST = 0.05
"""Share of the strongest colour below which a token gets none."""
NARROWEST = 1.5
"""Width in percent of the smallest mark under the slider."""
TITLES = {"vector": "Steered", "random": "Control", "prompt": "Instructed"}


def unsteered_head() -> str:
    """The line above the left pane."""
    return render("steer/head", title="Unsteered", what="the model as it is", steered=False)


def head_html(bank: VectorBank, settings: Settings | None) -> str:
    """The line above the right pane; the name alone where the settings cannot be read."""
    title, what = (TITLES[settings.side], caption(bank, settings)) if settings else ("Steered", "")
    return render("steer/head", title=title, what=what, steered=True)


def note_html(text: str) -> str:
    """A curator's note, as text."""
    return render("steer/note", text=text) if text else ""


def range_html(bank: VectorBank, vector: int | None) -> str:
    """Where on the scale the vector is useful: in words, and as a bar under the slider."""
    if vector is None:
        return ""
    ranges, limit = usable(bank, vector), scale_limit(bank)
    ends = [(50 * (lo / limit + 1), 50 * (hi / limit + 1)) for lo, hi in ranges]  # percent
    marks = [(left, max(NARROWEST, right - left)) for left, right in ends]
    largest = bank.usable_scale.largest
    unmarked = "usable scales not measured" if largest is None else f"this bank's answers hold up to {largest:g}"
    return render("steer/range", marks=marks, words=ranges_text(ranges), unmarked=unmarked)


def tokens_html(changes: Sequence[TokenChange]) -> str:
    """The answer with each token coloured by how much steering changed its probability."""
    return render("steer/tokens", tokens=[(change, _strength(change)) for change in changes])


def _strength(change: TokenChange) -> str:
    strength = min(1.0, abs(change.change) / FULL_COLOUR)
    return f"{strength:.2f}" if strength >= FAINTEST else "0"
