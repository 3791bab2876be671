"""The Inspect tab: what one vector answers to, what it is made of, and how the bank's vectors lie to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from melbo.app.context import DEFAULT_KEY
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
SMALL: dict[str, Any] = {"size": "sm", "min_width": 0}


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


class Section(NamedTuple):
    """What is known, the button that measures it, and the one that stops that."""

    shown: gr.HTML
    run: gr.Button
    stop: gr.Button


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = InspectActions(tab)
    publish(tab.context)
    _, vectors, *start = act.opened(DEFAULT_KEY)
    steer, examples, features, tokens, geometry, own, words, more_features, more_tokens, more_geometry, *_ = start
    said = notice("inspect-notice")
    with gr.Row(elem_id="inspect-head"):
        picked: dict[str, Any] = {"filterable": True, "interactive": True, "scale": 3, "min_width": 260}
        vector = gr.Dropdown(
            vectors["choices"], value=vectors["value"], label="Vector", elem_id="inspect-vector", **picked
        )
        go = gr.Button(steer, variant="primary", scale=1, min_width=160, elem_id="inspect-steer")
    with gr.Accordion("Where it is active: passages", open=True):
        shown = _html(examples, "inspect-examples")
        corpus = _corpus(tab)
    with gr.Accordion("Try your own text", open=False, elem_id="inspect-own-part"):
        asked = _own()
        coloured = _html(own, "inspect-own")
    ask = {"value": "Ask the model"}
    known = not more_features["visible"], not more_tokens["visible"], more_geometry["value"] != "Compute now", False
    sections = [
        _section(title, is_open, *rest)
        for is_open, (title, *rest) in zip(
            known,
            (
                ("What it is made of: SAE features", "features", features, more_features),
                ("Which tokens it moves: logit lens", "tokens", tokens, more_tokens),
                ("How the bank lies: geometry", "geometry", geometry, more_geometry),
                ("In the model's own words: patchscope", "words", words, ask),
            ),
            strict=True,
        )
    ]
    made, lens, space, spoken = (section.shown for section in sections)
    runs, stops = [section.run for section in sections[:-1]], [section.stop for section in sections]
    view = View._make((go, shown, made, lens, space, coloured, spoken, *runs, corpus.stop, *stops))
    _connect_own(tab, act, said, vector, asked, coloured)
    started = _connect_corpus(tab, act, said, vector, corpus, shown)
    started += _connect_runs(tab, act, said, vector, sections)
    _arrivals(tab, act, said, vector, view, started)


def _html(value: str, name: str) -> gr.HTML:
    return panel(value, "text", "chart", "progress", "inspect", elem_id=name)


def _section(title: str, is_open: bool, name: str, value: str, update: dict[str, Any]) -> Section:
    """A folded part of the page."""
    with gr.Accordion(title, open=is_open, elem_id=f"inspect-{name}-part"):
        shown = _html(value, f"inspect-{name}")
        with gr.Row(elem_classes="compute"):
            button = {"value": "Compute now"} | {key: update[key] for key in ("value", "visible") if key in update}
            run = gr.Button(**button, **SMALL, elem_id=f"inspect-{name}-run")
            stop = gr.Button("Stop", visible=False, **SMALL, elem_id=f"inspect-{name}-stop")
    return Section(shown, run, stop)


def _corpus(tab: TabContext) -> Corpus:
    own = tab.context.loaded.name == ORGANISM
    hint = "Paste paragraphs" + ("; empty: the embedded model's own chats" if own else "")
    room: dict[str, Any] = {"lines": 1, "max_lines": 6, "max_length": MAX_CORPUS, "scale": 1, "min_width": 240}
    with gr.Row(elem_id="inspect-corpus-row", elem_classes="compute"):
        text = gr.Textbox(label="Look in another text", placeholder=hint, elem_id="inspect-corpus", **room)
        run = gr.Button("Compute now", **SMALL, elem_id="inspect-examples-run")
        file = gr.UploadButton("Upload .txt or .jsonl", file_types=list(ENDINGS), **SMALL, elem_id="inspect-upload")
        stop = gr.Button("Stop", visible=False, **SMALL, elem_id="inspect-examples-stop")
    return Corpus(text, run, file, stop)


def _own() -> Own:
    hint = "Any text: the model reads it, nothing is steered"
    room: dict[str, Any] = {"lines": 2, "max_lines": 8, "max_length": MAX_CHARACTERS, "scale": 1, "min_width": 260}
    bare: dict[str, Any] = {"container": False}
    with gr.Row(elem_classes="compute"):
        text = gr.Textbox(label="Text", placeholder=hint, elem_id="inspect-text", **room)
        read = gr.Button("Read", **SMALL, elem_id="inspect-read")
    with gr.Row(elem_id="inspect-choices"):
        along = gr.Radio(
            ALONG, value="effect", label="Along", show_label=False, min_width=260, elem_id="inspect-along", **bare
        )
        as_chat = gr.Checkbox(True, label="As a chat message", min_width=160, **bare)
        random = gr.Checkbox(False, label="Random vector instead", min_width=180, elem_id="inspect-random", **bare)
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
    before = gr.State(DEFAULT_KEY)
    gr.on(
        [key.change, tab.look.change],
        with_notice(act.opened, 2 + len(view)),
        [key, before, tab.look, vector],
        [said, before, vector, *view],
        **local,
    )
    view.steer.click(with_notice(act.steer, 2), [key, vector], [said, tab.pick, tab.tabs], **SHARED)


def _connect_own(
    tab: TabContext, act: InspectActions, said: gr.HTML, vector: gr.Dropdown, own: Own, place: gr.HTML
) -> None:
    """Read; and read again where the direction changes and there is a text."""
    inputs = [tab.bank_key, vector, *own[:4]]
    event = model_event(place)
    gr.on([own.read.click, own.text.submit], with_notice(act.read, 1), inputs, [said, place], **event)
    gr.on(
        [own.along.input, own.as_chat.input, own.random.input],
        with_notice(act.read_again, 1),
        inputs,
        [said, place],
        trigger_mode="always_last",
        **event,
    )


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
    tab: TabContext, act: InspectActions, said: gr.HTML, vector: gr.Dropdown, sections: Sequence[Section]
) -> list[Any]:
    """The buttons that measure: the events that can be stopped."""
    inputs = [tab.bank_key, vector]
    works = (
        (act.find_features, act.found.features),
        (act.find_tokens, act.found.lens),
        (act.find_geometry, act.found.geometry),
        (act.ask, act.silent),
    )
    started = []
    for (find, back), (shown, run, stop) in zip(works, sections, strict=True):
        event = run.click(with_notice(find, 2), inputs, [said, shown, stop], **QUIET, **MODEL_EVENT)
        _connect_stop(said, inputs, stop, [event], back, shown)
        started.append(event)
    return started


def _connect_stop(
    said: gr.HTML, inputs: list[Any], stop: gr.Button, started: list[Any], back: Callable[..., str], place: gr.HTML
) -> None:
    """The button that ends a run and shows what was there before."""

    def stopped(key: str, index: Any) -> tuple[str, Any]:
        return back(key, index), gr.update(visible=False)

    stop.click(with_notice(stopped, 2), inputs, [said, place, stop], cancels=started, **LOCAL)
