"""The Steer tab's two drawers: settings, and what takes a comparison elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from melbo.app.choices import system_prompt
from melbo.app.context import Context
from melbo.bank.vector_bank import VectorBank
from melbo.steering.hooks import POSITIONS

DEFAULT_NEW_TOKENS = 96


class Share(NamedTuple):
    """The drawer for taking a comparison elsewhere."""

    link: gr.Button
    json: gr.Button
    markdown: gr.Button
    code: gr.Button
    address: gr.Textbox
    source: gr.Code
    file: gr.Textbox
    """Hidden: the text that the browser saves."""


def build_settings(context: Context, bank: VectorBank) -> tuple[gr.components.Component, ...]:
    """Add the drawer, and return its components in the order of the last fields of `Settings`; call inside the tab."""
    most = context.limits.new_tokens
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        system = gr.Textbox(system_prompt(bank), label="System prompt", lines=1, max_lines=4)
        with gr.Row():
            temperature = gr.Slider(
                0,
                2,
                value=0,
                step=0.05,
                label="Temperature",
                min_width=220,
                info="0: always the likeliest token. Above, both sides share their random draws.",
            )
            top_p = gr.Slider(
                0.05, 1, value=1, step=0.05, label="Top-p", min_width=220, info="Used above temperature 0."
            )
        with gr.Row():
            tokens = gr.Slider(
                1, most, value=min(DEFAULT_NEW_TOKENS, most), step=1, label="Max new tokens", min_width=220
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=220)
        positions = gr.Radio(list(POSITIONS), value="all", label="Tokens that get the vector")
    return system, temperature, top_p, tokens, seed, positions


def build_share() -> Share:
    """Add the drawer; call inside the tab."""
    with gr.Accordion("Share and export", open=False, elem_id="share"):
        with gr.Row(elem_id="share-buttons"):
            link, as_json, as_markdown, code = (
                gr.Button(name, size="sm", min_width=0) for name in ("Link", "JSON", "Markdown", "Show code")
            )
        address = gr.Textbox(
            label="Link to this comparison", visible=False, interactive=False, buttons=["copy"], elem_id="address"
        )
        source = gr.Code(
            language="python",
            label="Python that repeats the last answer",
            visible=False,
            interactive=False,
            wrap_lines=True,
            elem_id="source",
        )
        file = gr.Textbox(visible="hidden", elem_id="file")
    return Share(link, as_json, as_markdown, code, address, source, file)
