"""The Steer tab's components, top to bottom: steering, panes, message; the rest waits in two drawers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from melbo.app.choices import MAX_SCALE, example_prompts, opening, picker, presets
from melbo.app.context import Context
from melbo.app.conversation import to_view, turn
from melbo.app.events import PRIVATE
from melbo.app.notice import notice
from melbo.app.tabs.steer.drawers import Share, build_settings, build_share
from melbo.app.tabs.steer.html import head_html, note_html, range_html, unsteered_head
from melbo.app.tabs.steer.settings import MAX_INSTRUCTION, MAX_MIX, Settings
from melbo.bank.vector_bank import VectorBank

PANE_HEIGHT = "clamp(230px, 34vh, 460px)"
INSTRUCTION = "Answer like a pirate."
RIGHT_SIDES = [("Vector", "vector"), ("Random", "random"), ("Instruction", "prompt")]


class Place(NamedTuple):
    """Room for one vector of the mix."""

    row: gr.Row
    vector: gr.Dropdown
    scale: gr.Slider
    bar: gr.HTML
    remove: gr.Button


class Box(NamedTuple):
    """Where messages are typed, and the buttons beside it."""

    text: gr.Textbox
    send: gr.Button
    stop: gr.Button
    retry: gr.Button
    edit: gr.Button
    clear: gr.Button


class SteerParts(NamedTuple):
    """The whole tab."""

    notice: gr.HTML
    preset: gr.Radio
    note: gr.HTML
    places: tuple[Place, ...]
    add: gr.Button
    side: gr.Radio
    instruction: gr.Textbox
    left: gr.Chatbot
    right: gr.Chatbot
    head: gr.HTML
    tokens: gr.HTML
    box: Box
    colour: gr.Checkbox
    settings: tuple[gr.components.Component, ...]
    share: Share

    @property
    def values(self) -> list[Any]:
        """Inputs in the order of `read_settings`."""
        mix = [c for place in self.places for c in (place.vector, place.scale)]
        return [*mix, self.side, self.instruction, *self.settings]


@dataclass(frozen=True)
class _Start:
    """What the first visit shows."""

    bank: VectorBank
    vector: int
    scale: float

    @property
    def settings(self) -> Settings:
        return Settings(((self.vector, self.scale),))


def build_parts(context: Context) -> SteerParts:
    """Add the components; call inside the tab's gr.Tab."""
    bank = context.own_bank
    shown, first = opening(bank), presets(bank)[0]
    start = _Start(bank, first.vector, shown.scale if shown else first.scale)
    preset = gr.Radio(
        [(p.name, i) for i, p in enumerate(presets(bank))],
        value=0,
        label="Try",
        elem_id="presets",
        container=False,
        show_label=False,
        interactive=True,
    )
    note = gr.HTML(note_html(presets(bank)[0].note), elem_id="note", padding=False)
    places, add, side, instruction = _steering(start)
    left, right, head = _panes(start)
    tokens = gr.HTML("", elem_id="tokens", padding=False)
    said = notice("steer-notice")
    box, colour = _box(bank)
    settings = build_settings(context, bank)
    share = build_share()
    return SteerParts(
        said,
        preset,
        note,
        places,
        add,
        side,
        instruction,
        left,
        right,
        head,
        tokens,
        box,
        colour,
        settings,
        share,
    )


def _steering(start: _Start) -> tuple[tuple[Place, ...], gr.Button, gr.Radio, gr.Textbox]:
    with gr.Row(elem_id="steering"):
        with gr.Column(scale=3, min_width=300, elem_id="mix"):
            places = tuple(_place(start, i) for i in range(MAX_MIX))
            add = gr.Button("+ Add a vector", size="sm", elem_id="add", min_width=0)
        with gr.Column(scale=1, min_width=280, elem_id="side-column"):
            side = gr.Radio(RIGHT_SIDES, value="vector", label="On the right", elem_id="side")
            instruction = gr.Textbox(
                INSTRUCTION,
                label="Instruction",
                visible=False,
                max_length=MAX_INSTRUCTION,
                lines=1,
                max_lines=3,
                elem_id="instruction",
            )
    return places, add, side, instruction


def _place(start: _Start, i: int) -> Place:
    """A vector with its slider; only the first is filled and shown."""
    vector = start.vector if i == 0 else None
    with gr.Row(visible=i == 0, elem_classes="place") as row:
        name = f"Vector {i + 1}" if i else "Vector"
        chosen = gr.Dropdown(
            picker(start.bank),
            value=vector,
            label=name,
            filterable=True,
            interactive=True,
            min_width=200,
            elem_id=f"vector-{i}",
        )
        with gr.Column(min_width=220, elem_classes="strength"):
            scale = gr.Slider(
                -MAX_SCALE,
                MAX_SCALE,
                value=start.scale if i == 0 else 1.0,
                step=0.05,
                label=f"Scale {i + 1}" if i else "Scale",
                elem_id=f"scale-{i}",
                buttons=[],
            )
            bar = gr.HTML(range_html(start.bank, vector), padding=False)
        remove = gr.Button("Remove", size="sm", min_width=0, visible=i > 0, elem_classes="remove")
    return Place(row, chosen, scale, bar, remove)


def _panes(start: _Start) -> tuple[gr.Chatbot, gr.Chatbot, gr.HTML]:
    shown = opening(start.bank)
    views = [to_view(turn(shown.prompt, text)) for text in (shown.unsteered, shown.steered)] if shown else [[], []]
    with gr.Row(elem_id="panes"):
        with gr.Column(min_width=300):
            gr.HTML(unsteered_head(), padding=False)
            left = _pane("Unsteered", "unsteered", views[0])
        with gr.Column(min_width=300):
            head = gr.HTML(head_html(start.bank, start.settings), padding=False)
            right = _pane("Steered", "steered", views[1])
    return left, right, head


def _pane(name: str, elem_id: str, value: list[Any]) -> gr.Chatbot:
    return gr.Chatbot(
        value,
        label=name,
        show_label=False,
        elem_id=elem_id,
        elem_classes="pane",
        height=PANE_HEIGHT,
        render_markdown=False,
        sanitize_html=True,
        buttons=[],
        feedback_options=None,
        latex_delimiters=[],
        placeholder="Ask something below.",
    )


def _box(bank: VectorBank) -> tuple[Box, gr.Checkbox]:
    with gr.Row(elem_id="ask"):
        text = gr.Textbox(
            placeholder="Ask both at once",
            label="Message",
            show_label=False,
            container=False,
            lines=1,
            max_lines=6,
            elem_id="message",
        )
        send = gr.Button("Send", variant="primary", min_width=0, elem_id="send")
        stop, retry, edit, clear = (
            gr.Button(name, min_width=0, elem_id=name.lower()) for name in ("Stop", "Retry", "Edit", "Clear")
        )
    with gr.Row(elem_id="below"):
        with gr.Row(elem_id="examples"):
            examples = {prompt: gr.Button(prompt, size="sm", min_width=0) for prompt in example_prompts(bank)}
        colour = gr.Checkbox(label="Colour what changed", elem_id="colour", container=False, min_width=0)
    for prompt, button in examples.items():
        button.click(None, None, text, js=f"() => {json.dumps(prompt)}", **PRIVATE)
    return Box(text, send, stop, retry, edit, clear), colour
