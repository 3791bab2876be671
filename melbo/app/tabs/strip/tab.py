"""The Scale strip tab: its components and events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from melbo.app.choices import MAX_SCALE, example_prompts, picker, presets, system_prompt
from melbo.app.context import DEFAULT_KEY, Context
from melbo.app.events import LOCAL, QUIET, model_event
from melbo.app.jobs.event import updates
from melbo.app.jobs.waiting import waiting
from melbo.app.notice import notice, with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.strip.handlers import MIN_REACH, Calibration, grid, scale_strip
from melbo.app.tabs.strip.html import EMPTY, strip_html
from melbo.app.widgets.controls import slider

EVERY = 4
"""Tokens between two pictures of a growing strip."""
CARDS = 9
REACH = 4.0


class StripActions:
    """The tab's events, for one shared context."""

    def __init__(self, context: Context) -> None:
        self.context = context
        calibration = Calibration()
        self.strip = context.on_device(scale_strip, calibration)

    def run(self, key: str, prompt: str, vector: int | None, reach: float, cards: float) -> Iterator[Any]:
        """The strip as it grows."""
        bank = self.context.banks.get(key)
        chosen = 0 if vector is None else vector
        scales = grid(reach, cards)
        with closing(updates(self.strip(bank, prompt or "", system_prompt(bank), chosen, scales))) as events:
            for i, event in enumerate(events):
                strip = event.result or event.value
                if strip is None:
                    yield gr.skip()
                elif strip.finished or i % EVERY == 0:
                    yield strip_html(strip)

    def show_bank(self, key: str, before: str, pick: dict[str, Any] | None, vector: int | None) -> tuple[Any, ...]:
        """The key again, vectors to choose from, and the strip: emptied, unless the vector is the one before, perhaps
        under another label.
        """
        bank = self.context.banks.get(key)
        same, chosen = self.context.banks.same_vectors(before, key), vector
        if pick is not None and pick["bank"] == key:
            chosen = pick["vector"]
        elif not same:
            chosen = presets(bank)[0].vector
        kept = same and chosen == vector
        return key, gr.Dropdown(choices=picker(bank), value=chosen), gr.skip() if kept else EMPTY


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    context = tab.context
    bank = context.own_bank
    said = notice("strip-notice")
    with gr.Row(elem_id="strip-controls"):
        prompt = gr.Textbox(
            example_prompts(bank)[0],
            label="Prompt",
            lines=1,
            max_lines=4,
            scale=2,
            min_width=240,
            elem_id="strip-prompt",
        )
        vector = gr.Dropdown(
            picker(bank),
            value=presets(bank)[0].vector,
            label="Vector",
            filterable=True,
            interactive=True,
            scale=2,
            min_width=220,
            elem_id="strip-vector",
        )
        reach = slider("Reach", MIN_REACH, MAX_SCALE, REACH, "strip-reach", step=0.25, scale=1)
        most = context.limits.rows - (context.limits.rows + 1) % 2
        cards = slider("Cards", 3, most, min(CARDS, most), "strip-cards", step=2, scale=1)
    with gr.Row(elem_id="strip-buttons"):
        run = gr.Button("Run", variant="primary", min_width=0, elem_id="strip-run")
        stop = gr.Button("Stop", min_width=0, elem_id="strip-stop")
        place = waiting("strip-place")
    strip = gr.HTML(EMPTY, elem_id="strip", padding=False, min_height=60)
    act = StripActions(context)
    started = gr.on(
        [run.click, prompt.submit],
        with_notice(act.run, 1),
        [tab.bank_key, prompt, vector, reach, cards],
        [said, strip],
        **model_event(place),
    )
    stop.click(None, cancels=[started], **QUIET)
    before = gr.State(DEFAULT_KEY)
    gr.on(
        [tab.bank_key.change, tab.pick.change],
        with_notice(act.show_bank, 3),
        [tab.bank_key, before, tab.pick, vector],
        [said, before, vector, strip],
        **LOCAL,
    )
