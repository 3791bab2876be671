"""The Steer tab's components, top to bottom: steering, panes, message; then two drawers: settings, and what takes a
comparison elsewhere.
"""

import json
from typing import Any, NamedTuple

import gradio as gr

from melbo.app.choices import (
    example_prompts,
    lit,
    opening,
    presets,
    scale_limit,
    scale_step,
    system_prompt,
    usual_scale,
)
from melbo.app.context import Context
from melbo.app.conversation import to_view, turn
from melbo.app.events import PRIVATE
from melbo.app.notice import notice
from melbo.app.tabs.steer.html import head_html, note_html, range_html, unsteered_head
from melbo.app.tabs.steer.settings import MAX_INSTRUCTION, MAX_MIX, Settings
from melbo.app.widgets.controls import prompt_box, slider, vector_choice
from melbo.bank.vector_bank import VectorBank
from melbo.steering.hooks import POSITIONS

PANE_HEIGHT = "clamp(230px, 34vh, 460px)"
INSTRUCTION = "Answer like a pirate."
RIGHT_SIDES = [("Vector", "vector"), ("Random", "random"), ("Instruction", "prompt")]
DEFAULT_NEW_TOKENS = 96


class Place(NamedTuple):
    """Room for one vector of the mix."""

    row: gr.Row
    vector: gr.Dropdown
    scale: gr.Slider
    bar: gr.HTML
    remove: gr.Button


class SteerParts:
    """The whole tab; made inside its gr.Tab."""

    def __init__(self, context: Context) -> None:
        self.bank = bank = context.own_bank
        shown, first = opening(bank), presets(bank)[0]
        self.start = (first.vector, shown.scale if shown else first.scale)
        """The first visit's vector and scale: those of the answers that are shown."""
        bare: dict[str, Any] = {"container": False, "show_label": False, "interactive": True}
        choices = [(p.name, i) for i, p in enumerate(presets(bank))]
        self.preset = gr.Radio(choices, value=lit(bank, [self.start]), label="Try", elem_id="presets", **bare)
        self.note = gr.HTML(note_html(first.note), elem_id="note", padding=False)
        self._steering()
        self._panes()
        self.tokens = gr.HTML("", elem_id="tokens", padding=False)
        self.said = notice("steer-notice")
        self._box()
        self.settings = _settings(context, bank)
        self._share()

    @property
    def mix(self) -> list[Any]:
        """Vector and scale of each place."""
        return [c for place in self.places for c in (place.vector, place.scale)]

    @property
    def values(self) -> list[Any]:
        """Inputs in the order of `read_settings`."""
        return [*self.mix, self.side, self.instruction, *self.settings]

    def _steering(self) -> None:
        with gr.Row(elem_id="steering"):
            with gr.Column(scale=3, min_width=300, elem_id="mix"):
                self.places = tuple(self._place(i) for i in range(MAX_MIX))
                self.add = gr.Button("+ Add a vector", size="sm", elem_id="add", min_width=0)
            with gr.Column(scale=1, min_width=280, elem_id="side-column"):
                self.side = gr.Radio(RIGHT_SIDES, value="vector", label="On the right", elem_id="side")
                room: dict[str, Any] = {"max_length": MAX_INSTRUCTION, "lines": 1, "max_lines": 3, "visible": False}
                self.instruction = gr.Textbox(INSTRUCTION, label="Instruction", elem_id="instruction", **room)

    def _place(self, i: int) -> Place:
        """A vector with its slider; only the first is filled and shown."""
        vector, start = self.start if i == 0 else (None, usual_scale(self.bank))
        limit = scale_limit(self.bank)
        with gr.Row(visible=i == 0, elem_classes="place") as row:
            name, scale_name = (f"{text} {i + 1}" if i else text for text in ("Vector", "Scale"))
            chosen = vector_choice(self.bank, vector, f"vector-{i}", name, min_width=200)
            with gr.Column(min_width=220, elem_classes="strength"):
                scale = slider(scale_name, -limit, limit, start, f"scale-{i}", step=scale_step(limit), min_width=160)
                bar = gr.HTML(range_html(self.bank, vector), padding=False)
            remove = gr.Button("Remove", size="sm", min_width=0, visible=i > 0, elem_classes="remove")
        return Place(row, chosen, scale, bar, remove)

    def _panes(self) -> None:
        shown = opening(self.bank)
        views = [to_view(turn(shown.prompt, text)) for text in (shown.unsteered, shown.steered)] if shown else [[], []]
        with gr.Row(elem_id="panes"):
            with gr.Column(min_width=300):
                gr.HTML(unsteered_head(), padding=False)
                self.left = _pane("Unsteered", "unsteered", views[0])
            with gr.Column(min_width=300):
                self.head = gr.HTML(head_html(self.bank, Settings((self.start,))), padding=False)
                self.right = _pane("Steered", "steered", views[1])

    def _box(self) -> None:
        """Where messages are typed, and the buttons beside it."""
        with gr.Row(elem_id="ask"):
            self.text = gr.Textbox(
                placeholder="Ask both at once",
                label="Message",
                show_label=False,
                container=False,
                lines=1,
                max_lines=6,
                elem_id="message",
            )
            self.send = gr.Button("Send", variant="primary", min_width=0, elem_id="send")
            self.stop, self.retry, self.edit, self.clear = (
                gr.Button(name, min_width=0, elem_id=name.lower()) for name in ("Stop", "Retry", "Edit", "Clear")
            )
        with gr.Row(elem_id="below"):
            with gr.Row(elem_id="examples"):
                examples = {prompt: gr.Button(prompt, size="sm", min_width=0) for prompt in example_prompts(self.bank)}
            self.colour = gr.Checkbox(label="Colour what changed", elem_id="colour", container=False, min_width=0)
        for prompt, button in examples.items():
            button.click(None, None, self.text, js=f"() => {json.dumps(prompt)}", **PRIVATE)

    def _share(self) -> None:
        """The drawer for taking a comparison elsewhere."""
        with gr.Accordion("Share and export", open=False, elem_id="share"):
            with gr.Row(elem_id="share-buttons"):
                self.link, self.json, self.markdown, self.code = (
                    gr.Button(name, size="sm", min_width=0) for name in ("Link", "JSON", "Markdown", "Show code")
                )
            later: dict[str, Any] = {"visible": False, "interactive": False}
            title = "Link to this comparison"
            self.address = gr.Textbox(label=title, buttons=["copy"], elem_id="address", **later)
            title = "Python that repeats the last answer"
            self.source = gr.Code(language="python", label=title, wrap_lines=True, elem_id="source", **later)
            self.file = gr.Textbox(visible="hidden", elem_id="file")
            """The text that the browser saves."""


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


def _settings(context: Context, bank: VectorBank) -> tuple[gr.components.Component, ...]:
    """Add the drawer, and return its components in the order of the last fields of `Settings`."""
    most = context.limits.new_tokens
    wide: dict[str, Any] = {"min_width": 220}
    info = "0: always the likeliest token. Above, both sides share their random draws."
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        system = prompt_box(system_prompt(bank), label="System prompt")
        with gr.Row():
            temperature = gr.Slider(0, 2, value=0, step=0.05, label="Temperature", info=info, **wide)
            top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", info="Used above temperature 0.", **wide)
        with gr.Row():
            tokens = gr.Slider(1, most, value=min(DEFAULT_NEW_TOKENS, most), step=1, label="Max new tokens", **wide)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, **wide)
        positions = gr.Radio(list(POSITIONS), value="all", label="Tokens that get the vector")
    return system, temperature, top_p, tokens, seed, positions
