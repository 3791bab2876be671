"""The page's components, top to bottom."""

from __future__ import annotations

import html
import json
from typing import Any

import gradio as gr

from melbo.bank import VectorBank
from melbo.models import ORGANISM, LoadedModel
from melbo.steering import POSITIONS
from melbo.ui.choices import MAX_SCALE, example_prompts, opening, presets, system_prompt, vector_label
from melbo.ui.conversation import to_view, turn
from melbo.ui.events import MessageBox, Panes, Steering, connect, head_html, note_html
from melbo.ui.handlers import MAX_NEW_TOKENS, Context

DEFAULT_NEW_TOKENS = 96
MAX_WAITING = 32
"""Visitors in the queue before new messages are turned away."""
PANE_HEIGHT = "clamp(250px, 36vh, 480px)"


def build_demo(loaded: LoadedModel, bank: VectorBank) -> gr.Blocks:
    """The app for one model and one bank, ready for `launch(**launch_options())`.

    Raises:
        BankError: the bank was made for another model.
    """
    bank.check_fits(loaded)
    demo: gr.Blocks = gr.Blocks(title="MELBO: unsteered and steered", analytics_enabled=False)
    with demo:
        gr.HTML(_intro(loaded, bank), elem_id="intro", padding=False)
        steering = _steering(bank)
        panes = _panes(bank)
        box = _message_box(bank)
        settings = _settings(bank)
        connect(Context(loaded, bank), steering, panes, box, settings)
    demo.queue(max_size=MAX_WAITING)
    return demo


def _intro(loaded: LoadedModel, bank: VectorBank) -> str:
    facts = [
        f"model {loaded.name}",
        f"{len(bank)} vectors ({bank.config.method})",
        f"added after block {bank.layer} of {loaded.n_layers}",
        f"R = {bank.radius:.3g} ({bank.radius / bank.mean_residual_norm:.2f} × mean residual norm)",
    ]
    if loaded.name == ORGANISM:
        facts.append("a tiny test model, not an assistant")
    return (
        "<h1>MELBO</h1>"
        "<p>The same model answers twice: as it is, and with one vector, found without any labels, added to its "
        "activations.</p>"
        f'<p class="facts">{html.escape(" · ".join(facts))}</p>'
    )


def _steering(bank: VectorBank) -> Steering:
    offered = presets(bank)
    start = opening(bank)
    scale = start.scale if start else offered[0].scale
    first = offered[0].vector
    preset = gr.Radio(
        [(p.name, i) for i, p in enumerate(offered)], value=0, label="Presets", elem_id="presets", interactive=True
    )
    note = gr.HTML(note_html(offered[0].note), elem_id="note", padding=False)
    with gr.Row(elem_id="steering"):
        vector = gr.Dropdown(
            [(vector_label(bank, i), i) for i in range(len(bank))],
            value=first, label="Vector", filterable=True, interactive=True, min_width=220, elem_id="vector",
        )  # fmt: skip
        strength = gr.Slider(
            -MAX_SCALE, MAX_SCALE, value=scale, step=0.05, label="Scale", min_width=220, elem_id="scale", buttons=[]
        )
        control = gr.Checkbox(
            label="Control: random vector of the same norm", info="Shows that the direction is what matters.",
            min_width=220, elem_id="control",
        )  # fmt: skip
    return Steering(preset, note, vector, strength, control)


def _panes(bank: VectorBank) -> Panes:
    start = opening(bank)
    first = presets(bank)[0]
    views = [to_view(turn(start.prompt, text)) for text in (start.unsteered, start.steered)] if start else [[], []]
    with gr.Row(elem_id="panes"):
        with gr.Column(min_width=300):
            gr.HTML('<div class="pane-head"><b>Unsteered</b><span>the model as it is</span></div>', padding=False)
            left = _pane("Unsteered", "unsteered", views[0])
        with gr.Column(min_width=300):
            scale = start.scale if start else first.scale
            head = gr.HTML(head_html(bank, first.vector, scale, False), padding=False)
            right = _pane("Steered", "steered", views[1])
    return Panes(left, right, head)


def _pane(name: str, elem_id: str, value: list[Any]) -> gr.Chatbot:
    return gr.Chatbot(
        value, label=name, show_label=False, elem_id=elem_id, elem_classes="pane", height=PANE_HEIGHT,
        render_markdown=False, sanitize_html=True, buttons=[], feedback_options=None, latex_delimiters=[],
    )  # fmt: skip


def _message_box(bank: VectorBank) -> MessageBox:
    with gr.Row(elem_id="examples"):
        examples = [(prompt, gr.Button(prompt, size="sm", min_width=0)) for prompt in example_prompts(bank)]
    with gr.Row(elem_id="ask"):
        text = gr.Textbox(
            placeholder="Ask both at once", label="Message", show_label=False, container=False, lines=1, max_lines=6,
            elem_id="message",
        )  # fmt: skip
        send = gr.Button("Send", variant="primary", min_width=0, elem_id="send")
        stop = gr.Button("Stop", min_width=0, elem_id="stop")
        retry = gr.Button("Retry", min_width=0, elem_id="retry")
        clear = gr.Button("Clear", min_width=0, elem_id="clear")
    for prompt, button in examples:
        button.click(None, None, text, js=f"() => {json.dumps(prompt)}", api_visibility="private")
    return MessageBox(text, send, stop, retry, clear)


def _settings(bank: VectorBank) -> list[gr.components.Component]:
    """Components in the order of the last fields of `handlers.Settings`."""
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        system = gr.Textbox(system_prompt(bank), label="System prompt", lines=1, max_lines=4)
        with gr.Row():
            temperature = gr.Slider(
                0, 2, value=0, step=0.05, label="Temperature", min_width=220,
                info="0: always the likeliest token. Above 0 the two chats also differ by chance.",
            )  # fmt: skip
            top_p = gr.Slider(
                0.05, 1, value=1, step=0.05, label="Top-p", min_width=220, info="Used above temperature 0."
            )
        with gr.Row():
            tokens = gr.Slider(
                1, MAX_NEW_TOKENS, value=DEFAULT_NEW_TOKENS, step=1, label="Max new tokens", min_width=220
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=220)
        positions = gr.Radio(list(POSITIONS), value="all", label="Tokens that get the vector")
    return [system, temperature, top_p, tokens, seed, positions]
