"""The tab Banks & models: curated banks, the Hub's, one by name; the model and the device."""

from __future__ import annotations

from typing import Any

import gradio as gr

from melbo.bank import VectorBank
from melbo.bank.listing import BankInfo
from melbo.errors import BankError
from melbo.ui.bank_tab_css import PICK
from melbo.ui.models_tab_handlers import (
    MAX_NAME,
    device_facts,
    downloaded_models,
    hub_banks,
    load_hub,
    load_local,
    local_banks,
    model_facts,
)
from melbo.ui.models_tab_html import HUB_EMPTY, NO_LOCAL, NONE, STYLE, banks_html, facts_html
from melbo.ui.notice import hint, notice, noticed
from melbo.ui.shell import Shell

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
SLOW: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "concurrency_limit": 4}


class ModelsActions:
    """The tab's events, for one shell."""

    def __init__(self, shell: Shell) -> None:
        self.context = shell.context

    def listing(self) -> str:
        """The curated banks."""
        return banks_html(local_banks(), self.context.loaded, NO_LOCAL)

    def facts(self) -> tuple[str, str]:
        """Model and device."""
        device = device_facts(self.context)
        held = downloaded_models(self.context)
        if held:
            device.append(("Downloaded from the Hub", ", ".join(held)))
        return facts_html("Model", model_facts(self.context.loaded)), facts_html("This device", device)

    def search(self) -> tuple[list[str], str]:
        """Names and cards of the Hub's banks."""
        found: list[BankInfo] = hub_banks(self.context)
        return [info.name for info in found], banks_html(found, self.context.loaded, NONE)

    def use(self, bank: VectorBank, name: str) -> tuple[str, str]:
        """Said, and the key of a bank that was loaded."""
        key = self.context.banks.put(bank)
        return hint(f"{name} is in use: {len(bank)} vectors, in every tab."), key

    def pick_local(self, place: Any) -> tuple[str, str]:
        """Load the curated bank of this place in the list."""
        name = chosen([info.name for info in local_banks()], place)
        return self.use(load_local(self.context, name), name)

    def pick_hub(self, names: list[str], place: Any) -> tuple[str, str]:
        """Load the Hub's bank of this place in the list."""
        name = chosen(names, place)
        return self.use(load_hub(self.context, name, None), name)

    def load(self, repo: str, revision: str) -> tuple[str, str]:
        """Load a bank by name."""
        return self.use(load_hub(self.context, repo, revision), str(repo).strip())


def chosen(names: list[str], place: Any) -> str:
    """The name at a place that the browser sends.

    Raises:
        BankError: the list has no such place.
    """
    if isinstance(place, bool) or not isinstance(place, (int, float)) or place not in range(len(names)):
        raise BankError("this list is out of date; load the page again.")
    return names[int(place)]


def build(shell: Shell) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = ModelsActions(shell)
    said = notice("models-notice")
    plain: dict[str, Any] = {"css_template": STYLE, "padding": False, "apply_default_css": False}
    gr.HTML("<h4>Curated banks</h4>", **plain)
    local = gr.HTML(act.listing(), elem_id="models-local", js_on_load=PICK, **plain)
    gr.HTML("<h4>On the Hub</h4>", **plain)
    with gr.Row(elem_id="models-load"):
        repo = gr.Textbox(
            label="Repository", placeholder="user/bank", max_length=MAX_NAME, scale=3, min_width=220,
            elem_id="models-repo",
        )  # fmt: skip
        revision = gr.Textbox(
            label="Revision", placeholder="main", max_length=MAX_NAME, scale=1, min_width=130, elem_id="models-revision"
        )
        with gr.Column(scale=1, min_width=160, elem_id="models-buttons"):
            load = gr.Button("Load", variant="primary", size="sm", min_width=0, elem_id="models-load-button")
            look = gr.Button("List banks", size="sm", min_width=0, elem_id="models-look")
    names = gr.State([])
    hub = gr.HTML(HUB_EMPTY, elem_id="models-hub", js_on_load=PICK, **plain)
    model, device = act.facts()
    with gr.Row(equal_height=True):
        with gr.Column(min_width=300):
            gr.HTML(model, elem_id="models-model", **plain)
        with gr.Column(min_width=300):
            held = gr.HTML(device, elem_id="models-device", **plain)
    _connect(shell, act, said, (local, hub, held), (repo, revision, load, look), names)


def _connect(
    shell: Shell, act: ModelsActions, said: gr.HTML, shown: tuple[gr.HTML, gr.HTML, gr.HTML],
    named: tuple[gr.Textbox, gr.Textbox, gr.Button, gr.Button], names: gr.State,
) -> None:  # fmt: skip
    local, hub, held = shown
    repo, revision, load, look = named

    def pick_local(event: gr.EventData) -> tuple[str, str]:
        return act.pick_local((event._data or {}).get("index"))

    def pick_hub(event: gr.EventData, found: list[str]) -> tuple[str, str]:
        return act.pick_hub(found, (event._data or {}).get("index"))

    local.select(
        noticed(pick_local, 1), None, [said, shell.bank_key], **SLOW
    )  # queued, or the key's change is not told
    hub.select(noticed(pick_hub, 1), names, [said, shell.bank_key], **SLOW)
    gr.on([load.click, repo.submit], noticed(act.load, 1), [repo, revision], [said, shell.bank_key], **SLOW)
    look.click(noticed(act.search, 2), None, [said, names, hub], **SLOW)
    shell.bank_key.change(lambda: act.facts()[1], None, held, queue=False, **QUIET)
