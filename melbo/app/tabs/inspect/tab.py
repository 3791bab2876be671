"""The Inspect tab: what one vector answers to, what it is made of, and how the bank's vectors lie to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from melbo.app.conversation import MAX_CHARACTERS
from melbo.app.events import LOCAL, QUIET, SHARED, model_event
from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.notice import notice, with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.inspect.actions import InspectActions
from melbo.app.tabs.inspect.api import publish
from melbo.app.tabs.inspect.source import ENDINGS, MAX_CORPUS
from melbo.app.widgets.panel import panel
from melbo.organism.inputs import ORGANISM

ALONG = [("Effect × 1", "effect"), ("Effect × -1", "minus"), ("The vector itself", "vector")]


class View(NamedTuple):
    """The outputs of `InspectActions.show`."""

    steer: gr.Button
    examples: gr.HTML
    features: gr.HTML
    tokens: gr.HTML
    geometry: gr.HTML
    own: gr.HTML
    words: gr.HTML
    more_features: gr.Button
    more_tokens: gr.Button
    more_geometry: gr.Button
    stop_examples: gr.Button
    stop_features: gr.Button
    stop_tokens: gr.Button
    stop_geometry: gr.Button
    stop_words: gr.Button


class Corpus(NamedTuple):
    """What passages are looked for in."""

    text: gr.Textbox
    run: gr.Button
    file: gr.UploadButton
    stop: gr.Button


class Own(NamedTuple):
    """The inputs of `InspectActions.read`, after key and vector; then the button."""

    text: gr.Textbox
    along: gr.Radio
    as_chat: gr.Checkbox
    random: gr.Checkbox
    read: gr.Button


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = InspectActions(tab)
    publish(tab.context)
    _, vectors, *start = act.opened(tab.context.default_key)
    steer, examples, features, tokens, geometry, own, words, more_features, more_tokens, more_geometry, *_ = start
    said = notice("inspect-notice")
    with gr.Row(elem_id="inspect-head"):
        vector = gr.Dropdown(
            vectors["choices"], value=vectors["value"], label="Vector", filterable=True, interactive=True, scale=3,
            min_width=260, elem_id="inspect-vector",
        )  # fmt: skip
        go = gr.Button(steer, variant="primary", scale=1, min_width=160, elem_id="inspect-steer")
    with gr.Accordion("Where it is active: passages", open=True):
        shown = _html(examples, "inspect-examples")
        corpus = _corpus(tab)
    with gr.Accordion("Try your own text", open=False, elem_id="inspect-own-part"):
        asked = _own()
        coloured = _html(own, "inspect-own")
    with gr.Accordion("What it is made of: SAE features", open=not more_features["visible"]):
        made, compute_features, stop_features = _section(features, more_features, "features")
    with gr.Accordion("Which tokens it moves: logit lens", open=not more_tokens["visible"]):
        lens, compute_tokens, stop_tokens = _section(tokens, more_tokens, "tokens")
    with gr.Accordion("How the bank lies: geometry", open=more_geometry["value"] != "Compute now"):
        space, compute_geometry, stop_geometry = _section(geometry, more_geometry, "geometry")
    with gr.Accordion("In the model's own words: patchscope", open=False, elem_id="inspect-words-part"):
        spoken, ask, stop_words = _section(words, {"value": "Ask the model"}, "words")
    view = View(
        go, shown, made, lens, space, coloured, spoken, compute_features, compute_tokens, compute_geometry,
        corpus.stop, stop_features, stop_tokens, stop_geometry, stop_words,
    )  # fmt: skip
    _connect_own(tab, act, said, vector, asked, coloured)
    started = _connect_corpus(tab, act, said, vector, corpus, shown)
    started += _connect_runs(tab, act, said, vector, view, ask)
    _arrivals(tab, act, said, vector, view, started)


def _html(value: str, name: str) -> gr.HTML:
    return panel(value, "text", "chart", "progress", "inspect", elem_id=name)


def _section(value: str, update: dict[str, Any], name: str) -> tuple[gr.HTML, gr.Button, gr.Button]:
    """What is known, the button that measures it, and the one that stops that."""
    shown = _html(value, f"inspect-{name}")
    with gr.Row(elem_classes="compute"):
        run = gr.Button(
            update.get("value", "Compute now"), visible=update.get("visible", True), size="sm", min_width=0,
            elem_id=f"inspect-{name}-run",
        )  # fmt: skip
        stop = gr.Button("Stop", size="sm", min_width=0, visible=False, elem_id=f"inspect-{name}-stop")
    return shown, run, stop


def _corpus(tab: TabContext) -> Corpus:
    own = tab.context.loaded.name == ORGANISM
    with gr.Row(elem_id="inspect-corpus-row", elem_classes="compute"):
        text = gr.Textbox(
            label="Look in another text", lines=1, max_lines=6, max_length=MAX_CORPUS, scale=1, min_width=240,
            placeholder="Paste paragraphs" + ("; empty: the embedded model's own chats" if own else ""),
            elem_id="inspect-corpus",
        )  # fmt: skip
        run = gr.Button("Compute now", size="sm", min_width=0, elem_id="inspect-examples-run")
        file = gr.UploadButton(
            "Upload .txt or .jsonl", file_types=list(ENDINGS), size="sm", min_width=0, elem_id="inspect-upload"
        )
        stop = gr.Button("Stop", size="sm", min_width=0, visible=False, elem_id="inspect-examples-stop")
    return Corpus(text, run, file, stop)


def _own() -> Own:
    with gr.Row(elem_classes="compute"):
        text = gr.Textbox(
            label="Text", lines=2, max_lines=8, max_length=MAX_CHARACTERS, scale=1, min_width=260,
            placeholder="Any text: the model reads it, nothing is steered", elem_id="inspect-text",
        )  # fmt: skip
        read = gr.Button("Read", size="sm", min_width=0, elem_id="inspect-read")
    with gr.Row(elem_id="inspect-choices"):
        along = gr.Radio(ALONG, value="effect", label="Along", show_label=False, container=False, min_width=260,
                         elem_id="inspect-along")  # fmt: skip
        as_chat = gr.Checkbox(True, label="As a chat message", container=False, min_width=160)
        random = gr.Checkbox(False, label="Random vector instead", container=False, min_width=180,
                             elem_id="inspect-random")  # fmt: skip
    return Own(text, along, as_chat, random, read)


def _arrivals(
    tab: TabContext, act: InspectActions, said: gr.HTML, vector: gr.Dropdown, view: View, started: list[Any]
) -> None:
    """Another vector, another bank, a vector that another tab sends: what runs for the one before stops. And the way to
    Steer.
    """
    local: dict[str, Any] = LOCAL | {"cancels": started}
    key = tab.bank_key
    vector.input(with_notice(act.show, len(view)), [key, vector], [said, *view], trigger_mode="always_last", **local)
    before = gr.State(tab.context.default_key)
    gr.on(
        [key.change, tab.look.change], with_notice(act.opened, 2 + len(view)), [key, before, tab.look, vector],
        [said, before, vector, *view], **local,
    )  # fmt: skip
    view.steer.click(with_notice(act.steer, 2), [key, vector], [said, tab.pick, tab.tabs], **SHARED)


def _connect_own(
    tab: TabContext, act: InspectActions, said: gr.HTML, vector: gr.Dropdown, own: Own, place: gr.HTML
) -> None:
    """Read; and read again where the direction changes and there is a text."""
    inputs = [tab.bank_key, vector, *own[:4]]
    event = model_event(place)
    gr.on([own.read.click, own.text.submit], with_notice(act.read, 1), inputs, [said, place], **event)
    gr.on(
        [own.along.input, own.as_chat.input, own.random.input], with_notice(act.read_again, 1), inputs, [said, place],
        trigger_mode="always_last", **event,
    )  # fmt: skip


def _connect_corpus(
    tab: TabContext, act: InspectActions, said: gr.HTML, vector: gr.Dropdown, corpus: Corpus, place: gr.HTML
) -> list[Any]:
    """Look for passages in the text, in the organism's chats, or in a file: the events that can be stopped."""
    places = [said, place, corpus.stop]
    inputs = [tab.bank_key, vector]
    started = [
        corpus.run.click(with_notice(act.find_examples, 2), [*inputs, corpus.text], places, **QUIET, **MODEL_EVENT),
        corpus.file.upload(with_notice(act.find_in_file, 2), [*inputs, corpus.file], places, **QUIET, **MODEL_EVENT),
    ]
    _connect_stop(said, inputs, corpus.stop, started, act.found.examples, place)
    return started


def _connect_runs(
    tab: TabContext, act: InspectActions, said: gr.HTML, vector: gr.Dropdown, view: View, ask: gr.Button
) -> list[Any]:
    """The buttons that measure: the events that can be stopped."""
    inputs = [tab.bank_key, vector]
    started = []
    for run, stop, find, back, place in (
        (view.more_features, view.stop_features, act.find_features, act.found.features, view.features),
        (view.more_tokens, view.stop_tokens, act.find_tokens, act.found.lens, view.tokens),
        (view.more_geometry, view.stop_geometry, act.find_geometry, act.found.geometry, view.geometry),
        (ask, view.stop_words, act.ask, act.silent, view.words),
    ):
        event = run.click(with_notice(find, 2), inputs, [said, place, stop], **QUIET, **MODEL_EVENT)
        _connect_stop(said, inputs, stop, [event], back, place)
        started.append(event)
    return started


def _connect_stop(
    said: gr.HTML, inputs: list[Any], stop: gr.Button, started: list[Any], back: Callable[..., str], place: gr.HTML
) -> None:
    """The button that ends a run and shows what was there before."""

    def stopped(key: str, index: Any) -> tuple[str, Any]:
        return back(key, index), gr.update(visible=False)

    stop.click(with_notice(stopped, 2), inputs, [said, place, stop], cancels=started, **LOCAL)
