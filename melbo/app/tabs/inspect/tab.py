"""The Inspect tab: what one vector answers to, what it is made of, and how the bank's vectors lie to each other."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from melbo.app.context import DEFAULT_KEY
from melbo.app.conversation import MAX_CHARACTERS
from melbo.app.events import LOCAL, QUIET, SHARED, connect, model_event
from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.notice import notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.inspect.actions import InspectActions
from melbo.app.tabs.inspect.api import publish
from melbo.app.tabs.inspect.source import ENDINGS, MAX_CORPUS
from melbo.app.widgets.controls import panel, vector_choice
from melbo.organism.inputs import ORGANISM

ALONG = [("Effect × 1", "effect"), ("Effect × -1", "minus"), ("The vector itself", "vector")]
SMALL: dict[str, Any] = {"size": "sm", "min_width": 0}
BARE: dict[str, Any] = {"container": False}


class InspectTab:
    """The tab's components and events; made inside its gr.Tab."""

    def __init__(self, tab: TabContext) -> None:
        self.tab, self.act = tab, InspectActions(tab)
        publish(tab.context)
        _, vectors, *start = self.act.opened(DEFAULT_KEY)
        steer, examples, *sections, own, words, features, tokens, geometry = start[:10]
        self.on = partial(connect, notice("inspect-notice"))
        with gr.Row(elem_id="inspect-head"):
            bank = tab.context.own_bank
            self.vector = vector_choice(bank, vectors["value"], "inspect-vector", scale=3, min_width=260)
            go = gr.Button(steer, variant="primary", scale=1, min_width=160, elem_id="inspect-steer")
        self.chosen = [tab.bank_key, self.vector]
        self.started: list[Any] = []
        """Events that can be stopped."""
        with gr.Accordion("Where it is active: passages", open=True):
            self.examples = _html(examples, "inspect-examples")
            stop_examples = self._corpus()
        with gr.Accordion("Try your own text", open=False, elem_id="inspect-own-part"):
            coloured = self._own(own)
        act, ask = self.act, {"value": "Ask the model"}
        known = not features["visible"], not tokens["visible"], geometry["value"] != "Compute now", False
        parts: tuple[tuple[Any, ...], ...] = (
            ("What it is made of: SAE features", "features", features, partial(act.find, "sae"), act.found.features),
            ("Which tokens it moves: logit lens", "tokens", tokens, partial(act.find, "lens"), act.found.lens),
            ("How the bank lies: geometry", "geometry", geometry, partial(act.find, "geometry"), act.found.geometry),
            ("In the model's own words: patchscope", "words", ask, act.ask, act.silent),
        )
        values = (*sections, words)
        made = [self._section(*given) for given in zip(known, values, parts, strict=True)]
        shown, runs, stops = zip(*made, strict=True)
        *most, spoken = shown
        self._arrivals([go, self.examples, *most, coloured, spoken, *runs[:-1], stop_examples, *stops])
        self.on(go.click, act.steer, self.chosen, [tab.pick, tab.tabs], **SHARED)

    def _section(self, is_open: bool, value: str, part: tuple[Any, ...]) -> tuple[gr.HTML, gr.Button, gr.Button]:
        """A folded part of the page: what is known, the button that measures it (`find`), and the one that stops that
        and shows what was there before (`back`).
        """
        title, name, update, find, back = part
        with gr.Accordion(title, open=is_open, elem_id=f"inspect-{name}-part"):
            shown = _html(value, f"inspect-{name}")
            with gr.Row(elem_classes="compute"):
                button = {"value": "Compute now"} | {key: update[key] for key in ("value", "visible") if key in update}
                run = gr.Button(**button, **SMALL, elem_id=f"inspect-{name}-run")
                stop = gr.Button("Stop", visible=False, **SMALL, elem_id=f"inspect-{name}-stop")
        event = self.on(run.click, find, self.chosen, [shown, stop], **QUIET, **MODEL_EVENT)
        self._connect_stop(stop, [event], back, shown)
        return shown, run, stop

    def _corpus(self) -> gr.Button:
        """Passages of the text, of the organism's chats, or of a file; the button that stops the search."""
        own = self.tab.context.loaded.name == ORGANISM
        hint = "Paste paragraphs" + ("; empty: the embedded model's own chats" if own else "")
        room: dict[str, Any] = {"lines": 1, "max_lines": 6, "max_length": MAX_CORPUS, "scale": 1, "min_width": 240}
        with gr.Row(elem_id="inspect-corpus-row", elem_classes="compute"):
            text = gr.Textbox(label="Look in another text", placeholder=hint, elem_id="inspect-corpus", **room)
            run = gr.Button("Compute now", **SMALL, elem_id="inspect-examples-run")
            file = gr.UploadButton("Upload .txt or .jsonl", file_types=list(ENDINGS), **SMALL, elem_id="inspect-upload")
            stop = gr.Button("Stop", visible=False, **SMALL, elem_id="inspect-examples-stop")
        started = [
            self.on(trigger, find, [*self.chosen, given], [self.examples, stop], **QUIET, **MODEL_EVENT)
            for trigger, find, given in (
                (run.click, self.act.find_examples, text),
                (file.upload, self.act.find_in_file, file),
            )
        ]
        self._connect_stop(stop, started, self.act.found.examples, self.examples)
        return stop

    def _own(self, value: str) -> gr.HTML:
        """One's own text, read; and read again where the direction changes and there is a text."""
        hint = "Any text: the model reads it, nothing is steered"
        room: dict[str, Any] = {"lines": 2, "max_lines": 8, "max_length": MAX_CHARACTERS, "scale": 1, "min_width": 260}
        with gr.Row(elem_classes="compute"):
            text = gr.Textbox(label="Text", placeholder=hint, elem_id="inspect-text", **room)
            read = gr.Button("Read", **SMALL, elem_id="inspect-read")
        with gr.Row(elem_id="inspect-choices"):
            along = gr.Radio(
                ALONG, value="effect", label="Along", show_label=False, min_width=260, elem_id="inspect-along", **BARE
            )
            as_chat = gr.Checkbox(True, label="As a chat message", min_width=160, **BARE)
            random = gr.Checkbox(False, label="Random vector instead", min_width=180, elem_id="inspect-random", **BARE)
        place = _html(value, "inspect-own")
        inputs, event = [*self.chosen, text, along, as_chat, random], model_event(place)
        changed = [along.input, as_chat.input, random.input]
        self.on([read.click, text.submit], self.act.read, inputs, [place], **event)
        self.on(changed, self.act.read_again, inputs, [place], trigger_mode="always_last", **event)
        return place

    def _arrivals(self, view: list[Any]) -> None:
        """Another vector, another bank, a vector that another tab sends: what runs for the one before stops.

        Args:
            view: outputs of `InspectActions.show`.
        """
        local: dict[str, Any] = LOCAL | {"cancels": self.started}
        key, look, vector, before = self.tab.bank_key, self.tab.look, self.vector, gr.State(DEFAULT_KEY)
        self.on(vector.input, self.act.show, self.chosen, view, trigger_mode="always_last", **local)
        now = [key, before, look, vector]
        self.on([key.change, look.change], self.act.opened, now, [before, vector, *view], **local)

    def _connect_stop(self, stop: gr.Button, started: list[Any], back: Callable[..., str], place: gr.HTML) -> None:
        """The button that ends a run and shows what was there before."""

        def stopped(key: str, index: Any) -> tuple[str, Any]:
            return back(key, index), gr.update(visible=False)

        self.started += started
        self.on(stop.click, stopped, self.chosen, [place, stop], cancels=started, **LOCAL)


def _html(value: str, name: str) -> gr.HTML:
    return panel(value, "text", "chart", "progress", "inspect", elem_id=name)
