"""The tab Banks & models: curated banks, the Hub's, one by name; a model by name; the model and the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from melbo.app.context import DEFAULT_KEY
from melbo.app.events import LOCAL, QUIET, SLOW
from melbo.app.notice import notice, with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.models.handlers import MAX_NAME, downloaded_models
from melbo.app.tabs.models.html import HUB_EMPTY, title_html
from melbo.app.widgets.panel import panel
from melbo.bank.listing import BankInfo

STYLE = ("text", "models")
"""Style sheets."""


class Shown(NamedTuple):
    """What follows the visitor's bank: the outputs of `ModelsActions.follow`."""

    local: gr.HTML
    hub: gr.HTML
    model: gr.HTML
    device: gr.HTML


class Notices(NamedTuple):
    """What was said, beside what was pressed: the page is longer than a phone."""

    local: gr.HTML
    hub: gr.HTML
    model: gr.HTML


class Repository(NamedTuple):
    """A bank on the Hub by its name."""

    name: gr.Textbox
    revision: gr.Textbox
    load: gr.Button
    look: gr.Button


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = ModelsActions(tab)
    cards, _, model, device = act.follow(DEFAULT_KEY, [])
    said = notice("models-notice")
    panel(title_html("Curated banks"), *STYLE)
    local = panel(cards, *STYLE, elem_id="models-local", pick=True)
    panel(title_html("On the Hub"), *STYLE)
    hub_said = notice("models-hub-notice")
    with gr.Row(elem_id="models-load"):
        repo = gr.Textbox(
            label="Repository",
            placeholder="user/bank",
            max_length=MAX_NAME,
            scale=3,
            min_width=220,
            elem_id="models-repo",
        )
        revision = _revision("models-revision")
        with gr.Column(scale=1, min_width=160, elem_id="models-buttons"):
            load = gr.Button("Load", variant="primary", size="sm", min_width=0, elem_id="models-load-button")
            look = gr.Button("List banks", size="sm", min_width=0, elem_id="models-look")
    found: gr.State = gr.State([])
    hub = panel(HUB_EMPTY, *STYLE, elem_id="models-hub", pick=True)
    model_said = _other_model(tab, act)
    with gr.Row(equal_height=True):
        with gr.Column(min_width=300):
            facts = panel(model, *STYLE, elem_id="models-model")
        with gr.Column(min_width=300):
            held = panel(device, *STYLE, elem_id="models-device")
    shown = Shown(local, hub, facts, held)
    notices = Notices(said, hub_said, model_said)
    _connect_banks(tab, act, notices, shown, Repository(repo, revision, load, look), found)
    gr.on(tab.bank_key.change, with_notice(act.follow, 4), [tab.bank_key, found], [said_nothing(), *shown], **LOCAL)


def said_nothing() -> gr.HTML:
    """A place for the notice of an event that has nothing to say: what the tab has said stays."""
    return gr.HTML(visible=False)


def _other_model(tab: TabContext, act: ModelsActions) -> gr.HTML:
    """A model by name, where another may be loaded; the place for what is said about it."""
    context = tab.context
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
    load.click(with_notice(act.load_model, 1), [name, revision], [said, tab.bank_key], **SLOW)
    return said


def _revision(elem_id: str, visible: bool = True) -> gr.Textbox:
    return gr.Textbox(
        label="Revision",
        placeholder="main",
        max_length=MAX_NAME,
        scale=1,
        min_width=130,
        elem_id=elem_id,
        visible=visible,
    )


def _connect_banks(
    tab: TabContext, act: ModelsActions, said: Notices, shown: Shown, named: Repository, found: gr.State
) -> None:
    # Queued, all of them: else the change of a gr.State is not told.
    def pick_local(event: gr.EventData) -> Any:
        yield from act.pick_local((event._data or {}).get("index"))

    def pick_hub(event: gr.EventData, infos: list[BankInfo]) -> Any:
        yield from act.pick_hub(infos, (event._data or {}).get("index"))

    shown.local.select(with_notice(pick_local, 1), None, [said.local, tab.bank_key], **SLOW)
    shown.hub.select(with_notice(pick_hub, 1), found, [said.hub, tab.bank_key], **SLOW)
    values = [named.name, named.revision]
    gr.on([named.load.click, named.name.submit], with_notice(act.load, 1), values, [said.hub, tab.bank_key], **SLOW)
    slow = SLOW | {"show_progress": "minimal"}
    named.look.click(with_notice(act.search, 2), tab.bank_key, [said.hub, found, shown.hub], **slow)
    # A new message leaves no older one behind. In the browser alone: what is said last stays.
    for one in said:
        others = [other for other in said if other is not one]
        one.change(None, one, others, js="(said) => said ? ['', ''] : Array(2).fill({__type__: 'update'})", **QUIET)
