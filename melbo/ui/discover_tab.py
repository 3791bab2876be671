"""The Discover tab: prompts to a new bank, with a live curve, and on into Steer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from melbo.config import default_layers
from melbo.errors import MelboError
from melbo.ui.bank_tab_files import Downloads, bank_name, zip_bank
from melbo.ui.choices import example_prompts, system_prompt
from melbo.ui.device import MODEL_EVENT, on_device
from melbo.ui.discover_tab_api import publish
from melbo.ui.discover_tab_handlers import (
    METHOD_NAMES,
    METHODS,
    Checkpoints,
    Curve,
    Request,
    best_vector,
    default_steps,
    discover_steps,
    made_bank,
    read_request,
    stored_atlas,
)
from melbo.ui.discover_tab_html import EMPTY, LAYERS, STYLE, done_html, layers_html, running_html
from melbo.ui.notice import notice, noticed
from melbo.ui.shell import Shell

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
VECTORS = 32
MAX_STEPS = 500
"""End of the slider; a Space's limit may be lower."""


class DiscoverActions:
    """The tab's events, for one shell."""

    def __init__(self, shell: Shell) -> None:
        self.shell, self.context = shell, shell.context
        self.steps = on_device(partial(discover_steps, shell.context), min(120, shell.context.limits.seconds))
        self.files, self.checkpoints = Downloads(), Checkpoints()

    def layers(self, key: str, source: float, target: float) -> str:
        """The picture of the chosen layers."""
        bank = self.context.banks.get(key)
        return layers_html(bank.base_model.n_layers, int(source), int(target), stored_atlas(bank))

    def start(self, ticket: str, key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """A run from its start: curve, status, key of what was made, the bank's key, and the rows Resume and after."""
        request = read_request(self.context, self.context.banks.get(key), *values)
        checkpoint = self.checkpoints.path(ticket, request)
        checkpoint.unlink(missing_ok=True)
        yield from self._follow(request, checkpoint)

    def resume(self, ticket: str, key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """As `start`, from the checkpoint of these settings if there is one."""
        request = read_request(self.context, self.context.banks.get(key), *values)
        yield from self._follow(request, self.checkpoints.path(ticket, request))

    def _follow(self, request: Request, checkpoint: Path) -> Iterator[tuple[Any, ...]]:
        curve, began = Curve(), time.monotonic()
        hidden, same = gr.update(visible=False), gr.skip()
        yield curve, running_html(curve, "Preparing"), "", same, hidden, hidden
        try:
            with closing(self.steps(request, checkpoint)) as parts:
                for news in parts:
                    curve = curve.with_news(news, time.monotonic() - began)
                    bank = next((item.bank for item in news if item.bank is not None), None)
                    if bank is not None:
                        key = self.context.banks.put(bank)
                        yield curve, done_html(bank, curve), key, key, hidden, gr.update(visible=True)
                    elif news:
                        yield curve, running_html(curve), same, same, same, same
                    else:
                        yield (same,) * 6
        except MelboError:
            status, resume = self.stopped(curve)
            yield curve, status, same, same, resume, same  # the error is told beside it
            raise

    def stopped(self, curve: Curve) -> tuple[Any, ...]:
        """Status and the button Resume, of a run that was stopped."""
        if not curve.points:
            return '<p class="told" role="status">Stopped.</p>', gr.update(visible=True)
        return running_html(curve, "Stopped"), gr.update(visible=True)

    def steer(self, made: str) -> tuple[Any, ...]:
        """Values for the shell's pick and tabs: the new bank's strongest vector."""
        bank = made_bank(self.context, made)
        return self.shell.steer_with(made, best_vector(bank), 1.0), self.shell.go_to("steer")

    def download(self, made: str) -> str:
        """Path of the new bank's zip."""
        bank = made_bank(self.context, made)
        return self.files.write(f"{bank_name(bank)}.zip", partial(zip_bank, bank))


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
    bank: gr.Button
    download: gr.Button
    file: gr.DownloadButton


def build(shell: Shell) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = DiscoverActions(shell)
    publish(shell.context)
    ticket = gr.State("")
    curve, made = gr.State(Curve()), gr.State("")
    said = notice("discover-notice")
    with gr.Row(elem_id="discover"):
        with gr.Column(scale=3, min_width=300):
            settings, picture = _settings(shell, act)
        with gr.Column(scale=4, min_width=300):
            with gr.Row(elem_id="discover-buttons"):
                start = gr.Button("Start", variant="primary", scale=0, min_width=110, elem_id="discover-start")
                stop = gr.Button("Stop", scale=0, min_width=110, elem_id="discover-stop")
                resume = gr.Button("Resume", visible=False, scale=0, min_width=110, elem_id="discover-resume")
            status = gr.HTML(
                EMPTY, elem_id="discover-status", css_template=STYLE, padding=False, apply_default_css=False
            )
            with gr.Row(visible=False, elem_id="discover-after") as after:
                steer = gr.Button("Try it in Steer", variant="primary", min_width=0, elem_id="discover-steer")
                bank = gr.Button("Look at the bank", min_width=0, elem_id="discover-bank")
                download = gr.Button("Download (zip)", min_width=0, elem_id="discover-download")
            file = gr.DownloadButton("File", visible="hidden", elem_id="discover-file")
    buttons = Buttons(start, stop, resume, after, steer, bank, download, file)
    _connect(shell, act, said, settings, buttons, (ticket, curve, made), status)
    page = gr.context.Context.root_block
    assert page is not None
    page.load(lambda: secrets.token_urlsafe(16), None, ticket, queue=False, **QUIET)
    shown = [shell.bank_key, settings.source, settings.target]
    gr.on(
        [settings.source.change, settings.target.change, shell.bank_key.change], noticed(act.layers, 1), shown,
        [said, picture], trigger_mode="always_last", queue=False, **QUIET,
    )  # fmt: skip
    settings.auto.change(
        None, settings.auto, settings.radius, js="(auto) => ({interactive: !auto, __type__: 'update'})", **QUIET
    )
    settings.method.input(
        lambda method: default_steps(method, shell.context.limits.steps) if method in METHODS else 1,
        settings.method, settings.steps, queue=False, **QUIET,
    )  # fmt: skip


def _settings(shell: Shell, act: DiscoverActions) -> tuple[Settings, gr.HTML]:
    context = shell.context
    bank, limits = context.banks.get(context.default_key), context.limits
    n = bank.base_model.n_layers
    source, target = default_layers(n)
    prompts = gr.Textbox(
        example_prompts(bank)[0], label="Prompts", info="One a line; vectors are trained on all of them.", lines=2,
        max_lines=8, elem_id="discover-prompts",
    )  # fmt: skip
    method = gr.Radio([(METHOD_NAMES[m], m) for m in METHODS], value="melbo", label="Method", elem_id="discover-method")
    with gr.Row():
        first = gr.Slider(0, n - 2, value=source, step=1, label="Source block", min_width=200, buttons=[])
        last = gr.Slider(1, n - 1, value=target, step=1, label="Target block", min_width=200, buttons=[])
    picture = gr.HTML(
        act.layers(context.default_key, source, target), elem_id="discover-layers", css_template=LAYERS, padding=False,
        apply_default_css=False,
    )  # fmt: skip
    most, longest = min(limits.vectors, bank.base_model.d_model), min(MAX_STEPS, limits.steps)
    with gr.Row():
        count = gr.Slider(
            1, most, value=min(VECTORS, most), step=1, label="Vectors", min_width=200, buttons=[],
            elem_id="discover-vectors",
        )  # fmt: skip
        steps = gr.Slider(
            1, longest, value=default_steps("melbo", longest), step=1, label="Steps", min_width=200, buttons=[],
            elem_id="discover-steps",
        )  # fmt: skip
    with gr.Accordion("More", open=False):
        auto = gr.Checkbox(label="Choose R from the model", value=False, elem_id="discover-auto")
        radius = gr.Number(
            round(bank.radius / bank.mean_residual_norm, 3), label="R, in mean residual norms", minimum=0,
            elem_id="discover-radius",
        )  # fmt: skip
        system = gr.Textbox(system_prompt(bank), label="System prompt", lines=1, max_lines=4)
        seed = gr.Number(bank.config.seed, label="Seed", precision=0, minimum=0)
    return Settings(prompts, system, method, first, last, auto, radius, count, steps, seed), picture


def _connect(
    shell: Shell, act: DiscoverActions, said: gr.HTML, settings: Settings, buttons: Buttons,
    states: tuple[gr.State, gr.State, gr.State], status: gr.HTML,
) -> None:  # fmt: skip
    ticket, curve, made = states
    inputs = [ticket, shell.bank_key, *settings]
    outputs = [said, curve, status, made, shell.bank_key, buttons.resume, buttons.after]
    started = buttons.start.click(noticed(act.start, 6), inputs, outputs, **QUIET, **MODEL_EVENT)
    resumed = buttons.resume.click(noticed(act.resume, 6), inputs, outputs, **QUIET, **MODEL_EVENT)
    buttons.stop.click(
        noticed(act.stopped, 2), curve, [said, status, buttons.resume], cancels=[started, resumed], queue=False, **QUIET
    )
    buttons.steer.click(noticed(act.steer, 2), made, [said, shell.pick, shell.tabs], concurrency_limit=None, **QUIET)
    buttons.bank.click(lambda: shell.go_to("bank"), None, shell.tabs, queue=False, **QUIET)
    buttons.download.click(noticed(act.download, 1), made, [said, buttons.file], **QUIET).success(
        None, js="() => document.querySelector('#discover-file')?.click()", **QUIET
    )
