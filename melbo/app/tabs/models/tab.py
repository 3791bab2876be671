"""The tab Banks & models: curated banks, the Hub's, one by name; a model by name; the model and the device."""

from functools import partial
from typing import Any

import gradio as gr

from melbo.app.context import DEFAULT_KEY
from melbo.app.events import LOCAL, QUIET, SLOW, connect
from melbo.app.notice import notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.models.handlers import MAX_NAME, downloaded_models
from melbo.app.tabs.models.html import HUB_EMPTY, title_html
from melbo.app.widgets.controls import panel
from melbo.bank.listing import BankInfo

STYLE = ("text", "models")
"""Style sheets."""


class ModelsTab:
    """The tab's components and events; made inside its gr.Tab. What was said stands beside what was pressed: the page
    is longer than a phone.
    """

    # Queued, all events that change the bank: else the change of a gr.State is not told.

    def __init__(self, tab: TabContext) -> None:
        self.tab, self.act = tab, ModelsActions(tab)
        cards, _, model, device = self.act.follow(DEFAULT_KEY, [])
        self.found: gr.State = gr.State([])
        said, local = self._curated(cards)
        hub_said, hub = self._hub()
        model_said = self._other_model()
        with gr.Row(equal_height=True):
            with gr.Column(min_width=300):
                facts = panel(model, *STYLE, elem_id="models-model")
            with gr.Column(min_width=300):
                held = panel(device, *STYLE, elem_id="models-device")
        following, shown = [tab.bank_key, self.found], [local, hub, facts, held]
        connect(said_nothing(), tab.bank_key.change, self.act.follow, following, shown, **LOCAL)
        # A new message leaves no older one behind. In the browser alone: what is said last stays.
        notices = (said, hub_said, model_said)
        for one in notices:
            others = [other for other in notices if other is not one]
            one.change(None, one, others, js="(said) => said ? ['', ''] : Array(2).fill({__type__: 'update'})", **QUIET)

    def _curated(self, cards: str) -> tuple[gr.HTML, gr.HTML]:
        """The banks of this app: what was said, and the cards."""

        def pick(event: gr.EventData) -> Any:
            yield from self.act.pick_local((event._data or {}).get("index"))

        said = notice("models-notice")
        panel(title_html("Curated banks"), *STYLE)
        local = panel(cards, *STYLE, elem_id="models-local", pick=True)
        connect(said, local.select, pick, None, [self.tab.bank_key], **SLOW)
        return said, local

    def _hub(self) -> tuple[gr.HTML, gr.HTML]:
        """The Hub's banks, and one by its name: what was said, and the cards."""

        def pick(event: gr.EventData, infos: list[BankInfo]) -> Any:
            yield from self.act.pick_hub(infos, (event._data or {}).get("index"))

        panel(title_html("On the Hub"), *STYLE)
        said = notice("models-hub-notice")
        with gr.Row(elem_id="models-load"):
            named: dict[str, Any] = {"max_length": MAX_NAME, "scale": 3, "min_width": 220, "elem_id": "models-repo"}
            repo = gr.Textbox(label="Repository", placeholder="user/bank", **named)
            revision = _revision("models-revision")
            with gr.Column(scale=1, min_width=160, elem_id="models-buttons"):
                load = gr.Button("Load", variant="primary", size="sm", min_width=0, elem_id="models-load-button")
                look = gr.Button("List banks", size="sm", min_width=0, elem_id="models-look")
        hub = panel(HUB_EMPTY, *STYLE, elem_id="models-hub", pick=True)
        key, on = self.tab.bank_key, partial(connect, said)
        on(hub.select, pick, self.found, [key], **SLOW)
        on([load.click, repo.submit], self.act.load, [repo, revision], [key], **SLOW)
        on(look.click, self.act.search, key, [self.found, hub], **SLOW | {"show_progress": "minimal"})
        return said, hub

    def _other_model(self) -> gr.HTML:
        """A model by name, where another may be loaded; the place for what is said about it."""
        context = self.tab.context
        names = list(dict.fromkeys([*context.models.choices(), *downloaded_models(context)]))
        anything = context.limits.models is None
        if not anything and len(names) < 2:
            return said_nothing()
        more = " Type any model of the Hub, or a folder." if anything else ""
        panel(title_html("Another model", f"It starts with random vectors: discover your own.{more}"), *STYLE)
        said = notice("models-model-notice")
        with gr.Row(elem_id="models-other"):
            name = gr.Dropdown(
                names,
                value=None,
                label="Model",
                allow_custom_value=anything,
                filterable=anything,
                interactive=True,
                scale=3,
                min_width=220,
                elem_id="models-name",
            )
            revision = _revision("models-model-revision", visible=anything)
            with gr.Column(scale=1, min_width=160, elem_id="models-other-buttons"):
                load = gr.Button("Load the model", size="sm", min_width=0, elem_id="models-model-button")
        connect(said, load.click, self.act.load_model, [name, revision], [self.tab.bank_key], **SLOW)
        return said


def said_nothing() -> gr.HTML:
    """A place for the notice of an event that has nothing to say: what the tab has said stays."""
    return gr.HTML(visible=False)


def _revision(elem_id: str, visible: bool = True) -> gr.Textbox:
    room: dict[str, Any] = {"max_length": MAX_NAME, "scale": 1, "min_width": 130}
    return gr.Textbox(label="Revision", placeholder="main", elem_id=elem_id, visible=visible, **room)
