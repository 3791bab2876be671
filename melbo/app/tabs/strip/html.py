"""A scale strip as HTML: a band of cells, then a card for each scale."""

from melbo.app.render import render
from melbo.app.tabs.strip.handlers import Card, Kind, Strip

NAMES: dict[Kind, str] = {
    "unsteered": "unsteered",
    "same": "no change",
    "refusal": "refusal",
    "changed": "another answer",
    "salad": "word salad",
}
EMPTY: str = render("strip/empty")


def strip_html(strip: Strip) -> str:
    """The whole strip."""

    def within(card: Card) -> bool:
        return any(lo <= card.scale <= hi for lo, hi in strip.ranges)

    words = ", ".join(_number(lo) if lo == hi else f"{_number(lo)} to {_number(hi)}" for lo, hi in strip.ranges)
    found = f"Usable on this prompt: {words}." if words else "No usable scale on this prompt."
    summary = found if strip.finished else "Writing…"
    return render("strip/cells", strip=strip, names=NAMES, summary=summary, within=within, number=_number)


def _number(scale: float) -> str:
    """With its sign, a typographic one; 0 without."""
    return f"{scale:+g}".replace("-", "\N{MINUS SIGN}") if scale else "0"
