"""The Discover tab's components, by name."""

from __future__ import annotations

from typing import NamedTuple

import gradio as gr

from melbo.app.choices import example_prompts
from melbo.app.context import Limits
from melbo.app.tabs.discover.handlers import METHOD_NAMES, METHODS, default_steps, defaults
from melbo.app.tabs.discover.html import layers_html
from melbo.app.widgets.controls import slider
from melbo.app.widgets.panel import panel
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.stored import stored_atlas

MAX_STEPS = 500
"""End of the slider; a Space's limit may be lower."""


class Settings(NamedTuple):
    """The inputs of `read_request`, after the bank."""

    prompts: gr.Textbox
    system: gr.Textbox
    method: gr.Radio
    source: gr.Slider
    target: gr.Slider
    auto: gr.Checkbox
    radius: gr.Number
    n_vectors: gr.Slider
    steps: gr.Slider
    seed: gr.Number


class Buttons(NamedTuple):
    """What can be pressed."""

    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    after: gr.Row
    steer: gr.Button
    look: gr.Button
    download: gr.Button
    file: gr.DownloadButton


def build_settings(bank: VectorBank, limits: Limits) -> tuple[Settings, gr.HTML]:
    """The column of settings, and in it the picture of the layers."""
    d = defaults(bank, limits)
    prompts = gr.Textbox(
        example_prompts(bank)[0],
        label="Prompts",
        info="One a line; vectors are trained on all of them.",
        lines=2,
        max_lines=8,
        elem_id="discover-prompts",
    )
    method = gr.Radio([(METHOD_NAMES[m], m) for m in METHODS], value="melbo", label="Method", elem_id="discover-method")
    with gr.Row():
        first = slider("Source block", 0, d.last_layer - 1, d.source, "discover-source")
        last = slider("Target block", 1, d.last_layer, d.target, "discover-target")
    shown = layers_html(bank.base_model.n_layers, d.source, d.target, stored_atlas(bank))
    picture = panel(shown, "text", "layers", elem_id="discover-layers")
    longest = min(MAX_STEPS, limits.steps)
    with gr.Row():
        count = slider("Vectors", 1, d.most_vectors, d.n_vectors, "discover-vectors")
        steps = slider("Steps", 1, longest, default_steps("melbo", longest), "discover-steps")
    with gr.Accordion("More", open=False):
        auto = gr.Checkbox(label="Choose R from the model", value=False, elem_id="discover-auto")
        radius = gr.Number(d.radius, label="R, in mean residual norms", minimum=0, elem_id="discover-radius")
        system = gr.Textbox(d.system, label="System prompt", lines=1, max_lines=4)
        seed = gr.Number(bank.config.seed, label="Seed", precision=0, minimum=0)
    return Settings(prompts, system, method, first, last, auto, radius, count, steps, seed), picture
