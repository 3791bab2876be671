"""The tab Banks & models as HTML: lists of banks, facts."""

from collections.abc import Sequence
from typing import Any

from melbo.app.context import Context
from melbo.app.render import render
from melbo.app.tabs.models.handlers import fits
from melbo.bank.facts import BaseModel
from melbo.bank.listing import BankInfo

HUB_EMPTY: str = render("widgets/empty", text="Nothing is asked of the Hub until you press the button.")
NONE: str = render("widgets/empty", text="No bank with this tag is on the Hub yet.")
NO_LOCAL: str = render("widgets/empty", text="This installation has no folder of banks.")
MAX_LABELS = 8


def banks_html(infos: Sequence[BankInfo], context: Context, base: BaseModel, empty: str) -> str:
    """Banks as cards; those for this model, and for models that may be loaded, can be clicked.

    Args:
        infos: the banks.
        context: knows which models may be loaded.
        base: the model of the visitor's bank.
        empty: what is shown where there are none.
    """
    if not infos:
        return empty
    return render("models/banks", cards=[_card(info, context, base) for info in infos], max_labels=MAX_LABELS)


def _card(info: BankInfo, context: Context, base: BaseModel) -> dict[str, Any]:
    facts = [
        *([f"{info.n_vectors} vectors"] if info.n_vectors else []),
        *([info.method] if info.method else []),
        *([f"for {info.base_model}"] if info.base_model else []),
        *([f"block {info.source_layer}"] if info.source_layer is not None else []),
        *([f"{info.downloads:,} downloads"] if info.downloads is not None else []),
        *([f"commit {info.revision[:8]}"] if info.revision else []),
    ]
    if fits(info, base):
        return {"info": info, "facts": facts, "pick": True, "note": ""}
    offered = info.problem is None and context.models.offers(info.base_model)
    return {"info": info, "facts": facts, "pick": offered, "note": _offer(info, context, offered)}


def _offer(info: BankInfo, context: Context, offered: bool) -> str:
    """What a click does with a bank of another model, or why it cannot be clicked."""
    if info.problem is not None:
        return info.problem
    name = info.base_model or ""
    if not offered:
        return f"Made for {name}, which is not loaded here."
    return f"{'Use' if context.models.named(name) is not None else 'Load'} with {name}"


def title_html(title: str, note: str = "") -> str:
    """A heading, with a line under it."""
    return render("models/title", title=title, note=note)


def facts_html(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Pairs of name and value under a title."""
    return render("models/facts", title=title, facts=facts)
