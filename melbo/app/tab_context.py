"""What every tab gets from the page: the shared context, this visitor's bank, and ways to the other tabs."""

import secrets
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from melbo.app.context import Context

TABS = {
    "steer": "Steer",
    "strip": "Scale strip",
    "bank": "Bank",
    "inspect": "Inspect",
    "sweep": "R sweep",
    "discover": "Discover",
    "models": "Banks & models",
}
"""Tab ids and names, in order."""


@dataclass(frozen=True)
class TabContext:
    """Handed to each tab's `build`, called inside its gr.Tab.

    A tab changes the bank by putting a key (`context.banks.put(bank)`) into `bank_key`; tabs that show the bank listen
    to `bank_key.change`. To steer with a vector: outputs [tab.pick, tab.tabs], values tab.steer_with(key, 3,
    1.5), tab.go_to("steer"), in that order.
    """

    context: Context
    bank_key: gr.State
    """Key (str) of this visitor's bank in `context.banks`."""
    pick: gr.State
    """The vector that another tab wants in Steer and Scale strip: a value of `steer_with`, or None."""
    tabs: gr.Tabs
    look: gr.State = field(default_factory=lambda: gr.State(None))
    """The vector that another tab wants in Inspect: a value of `steer_with`, or None."""

    @staticmethod
    def go_to(tab: str) -> Any:
        """Value for the output `tabs`: shows this tab (an id of TABS)."""
        assert tab in TABS
        return gr.Tabs(selected=tab)

    @staticmethod
    def steer_with(bank_key: str, vector: int, scale: float) -> dict[str, Any]:
        """Value for the output `pick`; each is new, so that the same vector can be sent twice."""
        return {"bank": bank_key, "vector": int(vector), "scale": float(scale), "nonce": secrets.token_hex(4)}
