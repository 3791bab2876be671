"""The Discover tab: prompts to a new bank, with a live curve, and on into Steer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from melbo.app.downloads import Downloads, bank_name, zip_bank
from melbo.app.events import LOCAL, QUIET, SHARED, model_event
from melbo.app.jobs.event import newest
from melbo.app.jobs.waiting import waiting
from melbo.app.notice import notice, with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.discover.api import publish
from melbo.app.tabs.discover.handlers import (
    METHODS,
    Checkpoints,
    Curve,
    Request,
    best_vector,
    default_steps,
    defaults,
    discover_steps,
    made_bank,
    read_request,
)
from melbo.app.tabs.discover.html import EMPTY, done_html, layers_html, running_html
from melbo.app.tabs.discover.parts import Buttons, Settings, build_settings
from melbo.app.widgets.controls import downloads_by, hidden_file
from melbo.app.widgets.panel import panel
from melbo.app.widgets.progress import empty_html, status_html
from melbo.bank.facts import BaseModel
from melbo.errors import MelboError
from melbo.inspect.stored import stored_atlas


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
        """Values for the tab's pick and tabs: the new bank's strongest vector."""
        bank = made_bank(self.context, made)
        return self.tab.steer_with(made, best_vector(bank), 1.0), self.tab.go_to("steer")

    def download(self, made: str) -> str:
        """Path of the new bank's zip."""
        bank = made_bank(self.context, made)
        return self.files.write(f"{bank_name(bank)}.zip", partial(zip_bank, bank))


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = DiscoverActions(tab)
    publish(tab.context)
    ticket = gr.State("")
    curve, made = gr.State(Curve()), gr.State("")
    bank = tab.context.own_bank
    said = notice("discover-notice")
    with gr.Row(elem_id="discover"):
        with gr.Column(scale=3, min_width=300):
            settings, picture = build_settings(bank, tab.context.limits)
        with gr.Column(scale=4, min_width=300):
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
            file = hidden_file("discover-file")
    buttons = Buttons(start, stop, resume, after, steer, look, download, file)
    _connect(tab, act, said, settings, buttons, (ticket, curve, made), (status, place))
    before = gr.State(bank.base_model)
    suited = [settings.source, settings.target, settings.n_vectors, settings.radius, settings.system]
    shown = [tab.bank_key, settings.source, settings.target]
    tab.bank_key.change(with_notice(act.follow, 6), [tab.bank_key, before], [said, before, *suited], **LOCAL).then(
        with_notice(act.layers, 1), shown, [said, picture], **LOCAL
    )  # then: the model may be shallower
    page = gr.context.Context.root_block
    assert page is not None
    page.load(lambda: secrets.token_urlsafe(16), None, ticket, **LOCAL)
    gr.on(
        [settings.source.input, settings.target.input],
        with_notice(act.layers, 1),
        shown,
        [said, picture],
        trigger_mode="always_last",
        **LOCAL,
    )
    settings.auto.change(
        None, settings.auto, settings.radius, js="(auto) => ({interactive: !auto, __type__: 'update'})", **QUIET
    )
    settings.method.input(
        lambda method: default_steps(method, tab.context.limits.steps) if method in METHODS else 1,
        settings.method,
        settings.steps,
        **LOCAL,
    )


def _connect(
    tab: TabContext,
    act: DiscoverActions,
    said: gr.HTML,
    settings: Settings,
    buttons: Buttons,
    states: tuple[gr.State, gr.State, gr.State],
    shown: tuple[gr.HTML, gr.HTML],
) -> None:
    (ticket, curve, made), (status, place) = states, shown
    long = model_event(place)
    inputs = [ticket, tab.bank_key, *settings]
    outputs = [said, curve, status, made, tab.bank_key, buttons.resume, buttons.after]
    started = buttons.start.click(with_notice(act.start, 6), inputs, outputs, **long)
    resumed = buttons.resume.click(with_notice(act.resume, 6), inputs, outputs, **long)
    after_stop = [said, status, buttons.resume]
    buttons.stop.click(with_notice(act.stopped, 2), curve, after_stop, cancels=[started, resumed], **LOCAL)
    buttons.steer.click(with_notice(act.steer, 2), made, [said, tab.pick, tab.tabs], **SHARED)
    buttons.look.click(lambda: tab.go_to("bank"), None, tab.tabs, **LOCAL)
    downloads_by(buttons.download, act.download, made, said, buttons.file)
