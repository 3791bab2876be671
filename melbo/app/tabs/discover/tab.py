"""The Discover tab: prompts to a new bank, with a live curve, and on into Steer."""

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from melbo.app.choices import example_prompts, presets
from melbo.app.downloads import Downloads, bank_name, zip_bank
from melbo.app.events import LOCAL, QUIET, SHARED, connect, model_event
from melbo.app.jobs.event import newest
from melbo.app.jobs.waiting import waiting
from melbo.app.notice import notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.discover.api import publish
from melbo.app.tabs.discover.handlers import (
    METHOD_NAMES,
    METHODS,
    Checkpoints,
    Curve,
    Request,
    default_steps,
    defaults,
    discover_steps,
    made_bank,
    read_request,
)
from melbo.app.tabs.discover.html import EMPTY, done_html, layers_html, running_html
from melbo.app.widgets.controls import downloads_by, hidden_file, panel, prompt_box, slider
from melbo.app.widgets.progress import empty_html, status_html
from melbo.bank.facts import BaseModel
from melbo.errors import MelboError
from melbo.inspect.stored import stored_atlas

MAX_STEPS = 500
"""End of the slider; a Space's limit may be lower."""


class DiscoverActions:
    """The tab's events, for one page."""

    def __init__(self, tab: TabContext) -> None:
        self.tab, self.context = tab, tab.context
        self.steps = tab.context.on_device(discover_steps)
        self.files, self.checkpoints = Downloads(), Checkpoints()

    def layers(self, key: str, source: float, target: float) -> str:
        """The picture of the chosen layers."""
        bank = self.context.banks.get(key)
        return layers_html(bank.base_model.n_layers, int(source), int(target), stored_atlas(bank))

    def follow(self, key: str, before: BaseModel) -> tuple[Any, ...]:
        """The bank's model, and layers, vectors, R and system prompt as they suit it; they stay where the model is the
        one before.
        """
        bank = self.context.banks.get(key)
        if bank.base_model == before:
            return before, *(gr.skip() for _ in range(5))
        d = defaults(bank, self.context.limits)
        return (
            bank.base_model,
            gr.update(maximum=d.last_layer - 1, value=d.source),
            gr.update(maximum=d.last_layer, value=d.target),
            gr.update(maximum=d.most_vectors, value=d.n_vectors),
            d.radius,
            d.system,
        )

    def start(self, ticket: str, key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """A run from its start: curve, status, key of what was made, the bank's key, and the rows Resume and after."""
        request = read_request(self.context, self.context.banks.get(key), *values)
        checkpoint = self.checkpoints.path(ticket, request)
        checkpoint.unlink(missing_ok=True)
        yield from self._follow(ticket, request, checkpoint)

    def resume(self, ticket: str, key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """As `start`, from the checkpoint of these settings if there is one."""
        request = read_request(self.context, self.context.banks.get(key), *values)
        yield from self._follow(ticket, request, self.checkpoints.path(ticket, request))

    def _follow(self, ticket: str, request: Request, checkpoint: Path) -> Iterator[tuple[Any, ...]]:
        curve, began = Curve(), time.monotonic()
        hidden, same = gr.update(visible=False), gr.skip()
        yield curve, running_html(curve, "Preparing"), "", same, hidden, hidden
        try:
            with closing(self.steps(request, checkpoint)) as parts:
                for events in parts:
                    self.checkpoints.path(ticket, request)  # its folder is in use
                    curve = curve.grown(events, time.monotonic() - began)
                    bank = newest(events).result
                    if bank is not None:
                        key = self.context.banks.put(bank)
                        yield curve, done_html(bank, curve), key, key, hidden, gr.update(visible=True)
                    elif events:
                        yield curve, running_html(curve), same, same, same, same
                    else:
                        yield (same,) * 6
        except MelboError:
            status, resume = self.stopped(curve)
            yield curve, status, same, same, resume, same  # the error is shown beside it
            raise

    def stopped(self, curve: Curve) -> tuple[Any, ...]:
        """Status and the button Resume, of a run that was stopped."""
        if not curve.points:
            return status_html("Stopped."), gr.update(visible=True)
        return running_html(curve, "Stopped"), gr.update(visible=True)

    def steer(self, made: str) -> tuple[Any, ...]:
        """Values for the tab's pick and tabs: the new bank's first preset."""
        first = presets(made_bank(self.context, made))[0]
        return self.tab.steer_with(made, first.vector, first.scale), self.tab.go_to("steer")

    def download(self, made: str) -> str:
        """Path of the new bank's zip."""
        bank = made_bank(self.context, made)
        return self.files.write(f"{bank_name(bank)}.zip", partial(zip_bank, bank))


class DiscoverTab:
    """The tab's components and events; made inside its gr.Tab."""

    def __init__(self, tab: TabContext) -> None:
        self.tab, self.act = tab, DiscoverActions(tab)
        publish(tab.context)
        self.bank = tab.context.own_bank
        self.said = notice("discover-notice")
        self.on = partial(connect, self.said)
        with gr.Row(elem_id="discover"):
            with gr.Column(scale=3, min_width=300):
                self._settings()
            with gr.Column(scale=4, min_width=300):
                self._run()
        self._follow()

    def _settings(self) -> None:
        """The inputs of `read_request`, after the bank, and the picture of the layers."""
        bank, limits = self.bank, self.tab.context.limits
        d, longest = defaults(bank, limits), min(MAX_STEPS, limits.steps)
        prompts = gr.Textbox(
            example_prompts(bank)[0],
            label="Prompts",
            info="One a line; vectors are trained on all of them.",
            lines=2,
            max_lines=8,
            elem_id="discover-prompts",
        )
        names = [(METHOD_NAMES[m], m) for m in METHODS]
        method = gr.Radio(names, value="melbo", label="Method", elem_id="discover-method")
        with gr.Row():
            self.source = slider("Source block", 0, d.last_layer - 1, d.source, "discover-source")
            self.target = slider("Target block", 1, d.last_layer, d.target, "discover-target")
        shown = layers_html(bank.base_model.n_layers, d.source, d.target, stored_atlas(bank))
        self.picture = panel(shown, "text", "layers", elem_id="discover-layers")
        with gr.Row():
            self.count = slider("Vectors", 1, d.most_vectors, d.n_vectors, "discover-vectors")
            steps = slider("Steps", 1, longest, default_steps("melbo", longest), "discover-steps")
        with gr.Accordion("More", open=False):
            auto = gr.Checkbox(label="Choose R from the model", value=False, elem_id="discover-auto")
            norm = "R, in mean residual norms"
            self.radius = gr.Number(d.radius, label=norm, minimum=0, elem_id="discover-radius")
            self.system = prompt_box(d.system, label="System prompt")
            seed = gr.Number(bank.config.seed, label="Seed", precision=0, minimum=0)
        layers = [self.source, self.target]
        self.settings = [prompts, self.system, method, *layers, auto, self.radius, self.count, steps, seed]
        auto.change(None, auto, self.radius, js="(auto) => ({interactive: !auto, __type__: 'update'})", **QUIET)
        method.input(lambda name: default_steps(name, limits.steps) if name in METHODS else 1, method, steps, **LOCAL)

    def _run(self) -> None:
        """Start, stop, resume; what is found; and where to go with it."""
        tab, act = self.tab, self.act
        ticket, curve, made = gr.State(""), gr.State(Curve()), gr.State("")
        with gr.Row(elem_id="discover-buttons"):
            start = gr.Button("Start", variant="primary", scale=0, min_width=110, elem_id="discover-start")
            stop = gr.Button("Stop", scale=0, min_width=110, elem_id="discover-stop")
            resume = gr.Button("Resume", visible=False, scale=0, min_width=110, elem_id="discover-resume")
            place = waiting("discover-place")
        status = panel(empty_html(EMPTY), "text", "chart", "progress", "discover", elem_id="discover-status")
        with gr.Row(visible=False, elem_id="discover-after") as after:
            steer = gr.Button("Try it in Steer", variant="primary", min_width=0, elem_id="discover-steer")
            look = gr.Button("Look at the bank", min_width=0, elem_id="discover-bank")
            download = gr.Button("Download (zip)", min_width=0, elem_id="discover-download")
        downloads_by(download, act.download, made, self.said, hidden_file("discover-file"))
        inputs, outputs = [ticket, tab.bank_key, *self.settings], [curve, status, made, tab.bank_key, resume, after]
        long = model_event(place)
        runs = [self.on(start.click, act.start, inputs, outputs, **long)]
        runs.append(self.on(resume.click, act.resume, inputs, outputs, **long))
        self.on(stop.click, act.stopped, curve, [status, resume], cancels=runs, **LOCAL)
        self.on(steer.click, act.steer, made, [tab.pick, tab.tabs], **SHARED)
        look.click(lambda: tab.go_to("bank"), None, tab.tabs, **LOCAL)
        page = gr.context.Context.root_block
        assert page is not None
        page.load(lambda: secrets.token_urlsafe(16), None, ticket, **LOCAL)

    def _follow(self) -> None:
        """Another bank, other layers."""
        before = gr.State(self.bank.base_model)
        suited = [self.source, self.target, self.count, self.radius, self.system]
        shown = [self.tab.bank_key, self.source, self.target]
        followed = self.on(
            self.tab.bank_key.change, self.act.follow, [self.tab.bank_key, before], [before, *suited], **LOCAL
        )
        self.on(followed.then, self.act.layers, shown, [self.picture], **LOCAL)  # then: the model may be shallower
        moved = [self.source.input, self.target.input]
        self.on(moved, self.act.layers, shown, [self.picture], trigger_mode="always_last", **LOCAL)
