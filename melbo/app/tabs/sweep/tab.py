"""The R sweep tab: settings, a plot that fills in, the answers behind each point, export."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from melbo.app.choices import example_prompts
from melbo.app.context import DEFAULT_KEY
from melbo.app.downloads import Downloads, bank_name
from melbo.app.events import LOCAL, connect, model_event
from melbo.app.jobs.event import JobEvent, updates
from melbo.app.jobs.waiting import waiting
from melbo.app.notice import notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.sweep.api import publish
from melbo.app.tabs.sweep.handlers import (
    MAX_RADII_TEXT,
    MAX_VECTORS,
    checked_row,
    default_radii,
    default_steps,
    first_choice,
    is_alike,
    own_radius,
    read_request,
    sweep_steps,
    with_rows,
)
from melbo.app.tabs.sweep.html import answers_html, plot_html, summary_html
from melbo.app.widgets.controls import downloads_by, hidden_file, panel, prompt_box, slider
from melbo.app.widgets.progress import progress_html, status_html
from melbo.bank.facts import BaseModel
from melbo.errors import MelboError
from melbo.inspect.stored import stored_sweep
from melbo.radius_sweep.plot import plot_sweep
from melbo.radius_sweep.sweep import Sweep

VECTORS = 8
STORED = "Stored beside the bank."
SHEETS = ("text", "chart", "progress", "sweep")
"""Style sheets of what shows a sweep."""


class SweepActions:
    """The tab's events, for one page."""

    def __init__(self, tab: TabContext) -> None:
        self.context = tab.context
        self.steps = tab.context.on_device(sweep_steps)
        self.files = Downloads()

    def plot(self, key: str, sweep: Sweep | None, chosen: int | None = None) -> str:
        """The plot, with the bank's own R marked."""
        return plot_html(sweep, chosen, own_radius(sweep, self.context.banks.get(key)))

    def view(self, key: str, sweep: Sweep | None, origin: str = "") -> tuple[Any, ...]:
        """State, status, plot, choice of R, answers."""
        if sweep is None or not sweep.rows:
            return sweep, "", self.plot(key, sweep), gr.update(choices=[], value=None, visible=False), ""
        chosen = first_choice(sweep)
        choices = [(f"{row.radius:g}", i) for i, row in enumerate(sweep.rows)]
        select = gr.update(choices=choices, value=chosen, visible=True)
        summary, plot = summary_html(sweep, origin), self.plot(key, sweep, chosen)
        return sweep, summary, plot, select, answers_html(sweep, chosen)

    def open(self, key: str) -> tuple[Any, ...]:
        """Prompt, steps, the stored button, and the view of the bank's stored sweep."""
        bank = self.context.banks.get(key)
        sweep = stored_sweep(bank)
        button = gr.update(interactive=sweep is not None)
        steps = default_steps(bank, self.context.limits)
        return example_prompts(bank)[0], steps, button, *self.view(key, sweep, STORED)

    def follow(self, key: str, sweep: Sweep | None, number: Any) -> tuple[Any, ...]:
        """The stored button and the view for another bank; a sweep of the same model and layers stays on show."""
        bank = self.context.banks.get(key)
        found = stored_sweep(bank)
        button = gr.update(interactive=found is not None)
        if sweep is not None and is_alike(sweep, bank):
            chosen = checked_row(sweep, number) if sweep.rows and number is not None else None
            return button, gr.skip(), gr.skip(), self.plot(key, sweep, chosen), gr.skip(), gr.skip()
        return button, *self.view(key, found, STORED)

    def suited(self, key: str, before: BaseModel) -> tuple[Any, Any]:
        """The bank's model, and values of R as they suit it; they stay where the model is the one before."""
        bank = self.context.banks.get(key)
        return bank.base_model, gr.skip() if bank.base_model == before else default_radii(bank)

    def stored(self, key: str) -> tuple[Any, ...]:
        """The view of the bank's stored sweep."""
        return self.view(key, stored_sweep(self.context.banks.get(key)), STORED)

    def run(self, key: str, radii: str, n_vectors: float, steps: float, prompt: str) -> Iterator[tuple[Any, ...]]:
        """The view as the sweep goes on."""
        bank = self.context.banks.get(key)
        request = read_request(self.context.limits, radii, n_vectors, steps, prompt)
        sweep = None
        same: tuple[Any, ...] = tuple(gr.skip() for _ in range(3))
        yield None, progress_html(JobEvent("Measuring the unsteered model")), *self.view(key, None)[2:]
        try:
            with closing(updates(self.steps(bank, request))) as events:
                for event in events:
                    if (new := event.result or event.value) is not None:
                        sweep = new
                        yield self.view(key, sweep)
                    if event.result is None:
                        yield gr.skip(), progress_html(event) if event.phase else gr.skip(), *same
        except MelboError:
            yield self.view(key, sweep)  # what was measured stays; the error is shown beside it
            raise

    def stopped(self, sweep: Sweep | None) -> str:
        """The status of a sweep that was stopped."""
        if sweep is None or not sweep.rows:
            return status_html("Stopped.")
        return summary_html(sweep, "" if sweep.complete else "Stopped.")

    def choose(self, key: str, sweep: Sweep | None, number: Any) -> tuple[str, str]:
        """Plot and answers of another R."""
        row = checked_row(sweep, number)
        return self.plot(key, sweep, row), answers_html(sweep, row)

    def json(self, key: str, sweep: Sweep | None) -> str:
        """Path of the sweep as JSON."""
        return self._write(key, "json", with_rows(sweep).save)

    def png(self, key: str, sweep: Sweep | None) -> str:
        """Path of the plot."""
        return self._write(key, "png", partial(plot_sweep, with_rows(sweep)))

    def _write(self, key: str, ending: str, fill: Callable[[Path], object]) -> str:
        return self.files.write(f"{bank_name(self.context.banks.get(key))}-sweep.{ending}", fill)


class SweepTab:
    """The tab's components and events; made inside its gr.Tab."""

    def __init__(self, tab: TabContext) -> None:
        self.tab, self.act = tab, SweepActions(tab)
        publish(tab.context)
        prompt, steps, button, *start = self.act.open(DEFAULT_KEY)
        said = notice("sweep-notice")
        self.on = partial(connect, said)
        settings = self._settings(prompt, steps)
        with gr.Row(elem_id="sweep-buttons"):
            run = gr.Button("Run", variant="primary", scale=0, min_width=110, elem_id="sweep-run")
            stop = gr.Button("Stop", scale=0, min_width=110, elem_id="sweep-stop")
            given: dict[str, Any] = {"interactive": button["interactive"], "min_width": 140}
            stored = gr.Button("Stored sweep", scale=0, elem_id="sweep-stored", **given)
            place = waiting("sweep-place")
        self._view(start)
        with gr.Row(elem_id="sweep-export"):
            as_json = gr.Button("Export JSON", size="sm", scale=0, min_width=130, elem_id="sweep-json")
            as_png = gr.Button("Export PNG", size="sm", scale=0, min_width=130, elem_id="sweep-png")
            file = hidden_file("sweep-file")
        started = self.on(run.click, self.act.run, [tab.bank_key, *settings], self.view, **model_event(place))
        stops: dict[str, Any] = LOCAL | {"cancels": [started]}
        self.on(stop.click, self.act.stopped, self.sweep, [self.status], **stops)
        self.on(stored.click, self.act.stored, tab.bank_key, self.view, **stops)
        self._connect_view(stored)
        before = gr.State(tab.context.own_bank.base_model)
        suited = [before, settings[0]]
        self.on(tab.bank_key.change, self.act.suited, [tab.bank_key, before], suited, **LOCAL)
        for pressed, function in ((as_json, self.act.json), (as_png, self.act.png)):
            downloads_by(pressed, function, [tab.bank_key, self.sweep], said, file)

    def _settings(self, prompt: str, steps: int) -> list[Component]:
        """The inputs of `SweepActions.run`, after the key."""
        limits = self.tab.context.limits
        narrow: dict[str, Any] = {"scale": 1, "min_width": 190}
        with gr.Row(elem_id="sweep-settings"):
            asked = prompt_box(prompt, "sweep-prompt", scale=3, min_width=260)
            room: dict[str, Any] = {"max_length": MAX_RADII_TEXT, "scale": 2, "min_width": 220}
            radii = gr.Textbox(
                default_radii(self.tab.context.own_bank),
                label="R, as first:last:step or a list",
                elem_id="sweep-radii",
                **room,
            )
            n_vectors = slider("Vectors", 2, min(MAX_VECTORS, limits.vectors), VECTORS, "sweep-vectors", **narrow)
            count = slider("Steps", 1, min(200, limits.steps), min(steps, 200), "sweep-steps", **narrow)
        return [radii, n_vectors, count, asked]

    def _view(self, start: list[Any]) -> None:
        """The outputs of `SweepActions.view`, filled with what it gave."""
        sweep, status, plot, select, answers = start
        self.sweep = gr.State(sweep)
        self.status = panel(status, *SHEETS, elem_id="sweep-status")
        self.plot = panel(plot, *SHEETS, elem_id="sweep-plot", pick=True)
        with gr.Row():
            kind: dict[str, Any] = {"scale": 0, "interactive": True, "filterable": False, "min_width": 240}
            given = {key: select[key] for key in ("choices", "value", "visible")}
            self.radius = gr.Dropdown(**given, **kind, label="Answers at R", elem_id="sweep-radius")
        self.answers = panel(answers, *SHEETS, elem_id="sweep-answers")
        self.view = [self.sweep, self.status, self.plot, self.radius, self.answers]

    def _connect_view(self, stored: gr.Button) -> None:
        """Another R; another bank."""
        key, act, now = self.tab.bank_key, self.act, [self.tab.bank_key, self.sweep, self.radius]

        def pick(event: gr.EventData, key: str, sweep: Sweep | None) -> tuple[Any, ...]:
            number = (event._data or {}).get("index")
            return number, *act.choose(key, sweep, number)

        self.on(self.radius.input, act.choose, now, [self.plot, self.answers], **LOCAL)
        self.on(self.plot.select, pick, now[:2], [self.radius, self.plot, self.answers], **LOCAL)
        self.on(key.change, act.follow, now, [stored, *self.view], **LOCAL)
