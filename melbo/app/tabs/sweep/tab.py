"""The R sweep tab: settings, a plot that fills in, the answers behind each point, export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import gradio as gr

from melbo.app.choices import example_prompts
from melbo.app.context import DEFAULT_KEY
from melbo.app.downloads import Downloads, bank_name
from melbo.app.events import LOCAL, model_event
from melbo.app.jobs.event import JobEvent, updates
from melbo.app.jobs.waiting import waiting
from melbo.app.notice import notice, with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.sweep.api import publish
from melbo.app.tabs.sweep.handlers import (
    MAX_RADII_TEXT,
    MAX_VECTORS,
    RADII,
    checked_row,
    default_steps,
    fill_json,
    fill_png,
    first_choice,
    is_alike,
    own_radius,
    read_request,
    sweep_steps,
)
from melbo.app.tabs.sweep.html import answers_html, plot_html, summary_html
from melbo.app.widgets.controls import downloads_by, hidden_file, slider
from melbo.app.widgets.panel import panel
from melbo.app.widgets.progress import progress_html, status_html
from melbo.errors import MelboError
from melbo.inspect.stored import stored_sweep
from melbo.radius_sweep.sweep import Sweep

VECTORS = 8
STORED = "Stored beside the bank."
SHEETS = ("text", "chart", "progress", "sweep")
"""Style sheets of what shows a sweep."""


class View(NamedTuple):
    """What shows a sweep: the outputs of `SweepActions.view`."""

    sweep: gr.State
    status: gr.HTML
    plot: gr.HTML
    radius: gr.Dropdown
    answers: gr.HTML


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
        return (
            example_prompts(bank)[0],
            default_steps(bank, self.context.limits),
            button,
            *self.view(key, sweep, STORED),
        )

    def follow(self, key: str, sweep: Sweep | None, number: Any) -> tuple[Any, ...]:
        """The stored button and the view for another bank; a sweep of the same model and layers stays on show."""
        bank = self.context.banks.get(key)
        found = stored_sweep(bank)
        button = gr.update(interactive=found is not None)
        if sweep is not None and is_alike(sweep, bank):
            chosen = checked_row(sweep, number) if sweep.rows and number is not None else None
            return button, gr.skip(), gr.skip(), self.plot(key, sweep, chosen), gr.skip(), gr.skip()
        return button, *self.view(key, found, STORED)

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
        name = bank_name(self.context.banks.get(key))
        return self.files.write(f"{name}-sweep.json", fill_json(sweep))

    def png(self, key: str, sweep: Sweep | None) -> str:
        """Path of the plot."""
        name = bank_name(self.context.banks.get(key))
        return self.files.write(f"{name}-sweep.png", fill_png(sweep))


class Settings(NamedTuple):
    """The inputs of `SweepActions.run`, after the key."""

    radii: gr.Textbox
    n_vectors: gr.Slider
    steps: gr.Slider
    prompt: gr.Textbox


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = SweepActions(tab)
    publish(tab.context)
    prompt, steps, button, *start = act.open(DEFAULT_KEY)
    said = notice("sweep-notice")
    settings = _settings(tab, prompt, steps)
    with gr.Row(elem_id="sweep-buttons"):
        run = gr.Button("Run", variant="primary", scale=0, min_width=110, elem_id="sweep-run")
        stop = gr.Button("Stop", scale=0, min_width=110, elem_id="sweep-stop")
        stored = gr.Button(
            "Stored sweep", scale=0, min_width=140, interactive=button["interactive"], elem_id="sweep-stored"
        )
        place = waiting("sweep-place")
    view = _view(start)
    with gr.Row(elem_id="sweep-export"):
        as_json = gr.Button("Export JSON", size="sm", scale=0, min_width=130, elem_id="sweep-json")
        as_png = gr.Button("Export PNG", size="sm", scale=0, min_width=130, elem_id="sweep-png")
        file = hidden_file("sweep-file")
    _connect(tab, act, said, settings, view, (run, stop, stored), place)
    for pressed, function in ((as_json, act.json), (as_png, act.png)):
        downloads_by(pressed, function, [tab.bank_key, view.sweep], said, file)


def _settings(tab: TabContext, prompt: str, steps: int) -> Settings:
    limits = tab.context.limits
    with gr.Row(elem_id="sweep-settings"):
        asked = gr.Textbox(prompt, label="Prompt", lines=1, max_lines=4, scale=3, min_width=260, elem_id="sweep-prompt")
        label = "R, as first:last:step or a list"
        radii = gr.Textbox(RADII, label=label, max_length=MAX_RADII_TEXT, scale=2, min_width=220, elem_id="sweep-radii")
        narrow: dict[str, Any] = {"scale": 1, "min_width": 190}
        n_vectors = slider("Vectors", 2, min(MAX_VECTORS, limits.vectors), VECTORS, "sweep-vectors", **narrow)
        count = slider("Steps", 1, min(200, limits.steps), min(steps, 200), "sweep-steps", **narrow)
    return Settings(radii, n_vectors, count, asked)


def _view(start: list[Any]) -> View:
    """The components, filled with what `SweepActions.view` gave."""
    sweep, status, plot, select, answers = start
    state = gr.State(sweep)
    told = panel(status, *SHEETS, elem_id="sweep-status")
    drawn = panel(plot, *SHEETS, elem_id="sweep-plot", pick=True)
    with gr.Row():
        kind: dict[str, Any] = {"scale": 0, "interactive": True, "filterable": False, "min_width": 240}
        given = {key: select[key] for key in ("choices", "value", "visible")}
        radius = gr.Dropdown(**given, **kind, label="Answers at R", elem_id="sweep-radius")
    return View(state, told, drawn, radius, panel(answers, *SHEETS, elem_id="sweep-answers"))


def _connect(
    tab: TabContext,
    act: SweepActions,
    said: gr.HTML,
    settings: Settings,
    view: View,
    buttons: tuple[gr.Button, ...],
    place: gr.HTML,
) -> None:
    """Run, stop, stored; another R; another bank."""
    run, stop, stored = buttons
    started = run.click(with_notice(act.run, len(view)), [tab.bank_key, *settings], [said, *view], **model_event(place))
    stop.click(with_notice(act.stopped, 1), view.sweep, [said, view.status], cancels=[started], **LOCAL)
    stored.click(with_notice(act.stored, len(view)), tab.bank_key, [said, *view], cancels=[started], **LOCAL)
    view.radius.input(
        with_notice(act.choose, 2), [tab.bank_key, view.sweep, view.radius], [said, view.plot, view.answers], **LOCAL
    )

    def pick(event: gr.EventData, key: str, sweep: Sweep | None) -> tuple[Any, ...]:
        number = (event._data or {}).get("index")
        return number, *act.choose(key, sweep, number)

    view.plot.select(
        with_notice(pick, 3), [tab.bank_key, view.sweep], [said, view.radius, view.plot, view.answers], **LOCAL
    )
    tab.bank_key.change(
        with_notice(act.follow, 1 + len(view)), [tab.bank_key, view.sweep, view.radius], [said, stored, *view], **LOCAL
    )
