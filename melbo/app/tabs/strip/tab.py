"""The Scale strip tab: its components and events."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import gradio as gr

from melbo.app.choices import example_prompts, picker, presets, system_prompt
from melbo.app.context import DEFAULT_KEY, Context
from melbo.app.events import LOCAL, QUIET, connect, model_event
from melbo.app.jobs.event import updates
from melbo.app.jobs.waiting import waiting
from melbo.app.notice import notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.strip.handlers import CARDS, Calibration, grid, reach_of, scale_strip
from melbo.app.tabs.strip.html import EMPTY, strip_html
from melbo.app.widgets.controls import prompt_box, slider, vector_choice

EVERY = 4
"""Tokens between two pictures of a growing strip."""


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
        """The key again, vectors to choose from, the reach where the bank is another, and the strip: emptied, unless
        the vector is the one before, perhaps under another label.
        """
        bank = self.context.banks.get(key)
        same, chosen = self.context.banks.same_vectors(before, key), vector
        if pick is not None and pick["bank"] == key:
            chosen = pick["vector"]
        elif not same:
            chosen = presets(bank)[0].vector
        kept = same and chosen == vector
        far = reach_of(bank)
        reach = gr.skip() if same else gr.Slider(far.low, far.high, value=far.value, step=far.step)
        return key, gr.Dropdown(choices=picker(bank), value=chosen), reach, gr.skip() if kept else EMPTY


class StripTab:
    """The tab's components and events; made inside its gr.Tab."""

    def __init__(self, tab: TabContext) -> None:
        bank, rows = tab.context.own_bank, tab.context.limits.rows
        act, on = StripActions(tab.context), partial(connect, notice("strip-notice"))
        with gr.Row(elem_id="strip-controls"):
            prompt = prompt_box(example_prompts(bank)[0], "strip-prompt", scale=2, min_width=240)
            vector = vector_choice(bank, presets(bank)[0].vector, "strip-vector", scale=2, min_width=220)
            far = reach_of(bank)
            reach = slider("Reach", far.low, far.high, far.value, "strip-reach", step=far.step, scale=1)
            most = rows - (rows + 1) % 2
            cards = slider("Cards", 3, most, min(CARDS, most), "strip-cards", step=2, scale=1)
        with gr.Row(elem_id="strip-buttons"):
            run = gr.Button("Run", variant="primary", min_width=0, elem_id="strip-run")
            stop = gr.Button("Stop", min_width=0, elem_id="strip-stop")
            place = waiting("strip-place")
        strip = gr.HTML(EMPTY, elem_id="strip", padding=False, min_height=60)
        asked = [tab.bank_key, prompt, vector, reach, cards]
        started = on([run.click, prompt.submit], act.run, asked, [strip], **model_event(place))
        stop.click(None, cancels=[started], **QUIET)
        before = gr.State(DEFAULT_KEY)
        now = [tab.bank_key, before, tab.pick, vector]
        on([tab.bank_key.change, tab.pick.change], act.show_bank, now, [before, vector, reach, strip], **LOCAL)
