"""Which function each event of the Steer tab calls, and what gradio needs around it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from melbo.app.context import DEFAULT_KEY
from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.notice import with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.steer.actions import SteerActions
from melbo.app.tabs.steer.arrival import Arrival
from melbo.app.tabs.steer.parts import SteerParts

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
ADDRESS = "(q) => !q || q.startsWith('http') ? q : location.origin + location.pathname + '?' + q"
SAVE = """(text) => {{ if (!text) return;
const link = document.createElement('a');
link.href = URL.createObjectURL(new Blob([text], {{type: '{kind}'}}));
link.download = 'melbo.{ending}'; link.click(); URL.revokeObjectURL(link.href); }}"""


def connect(tab: TabContext, parts: SteerParts) -> None:
    """Attach every event; call inside the Blocks."""
    count = gr.State(1)
    act = SteerActions(tab.context)
    _controls(tab, parts, act, count)
    _chat(tab, parts, act)
    _share(tab, parts, act)
    _arrivals(tab, parts, act, count)


def _mix_outputs(parts: SteerParts, count: gr.State) -> list[Any]:
    """Outputs of `SteerActions.mix`."""
    each = [c for p in parts.places for c in (p.row, p.vector, p.scale, p.bar)]
    return [*each, parts.add, count]


def _controls(tab: TabContext, parts: SteerParts, act: SteerActions, count: gr.State) -> None:
    """Presets, vectors, sides."""
    key, mix = tab.bank_key, _mix_outputs(parts, count)
    local: dict[str, Any] = QUIET | {"queue": False}
    parts.preset.input(
        with_notice(act.pick_preset, len(mix) + 4), [key, parts.preset, parts.left, parts.right],
        [parts.notice, parts.note, parts.left, parts.right, parts.head, *mix], **local,
    )  # fmt: skip
    now = [key, count, *(c for p in parts.places for c in (p.vector, p.scale))]
    parts.add.click(with_notice(act.add, len(mix)), now, [parts.notice, *mix], **local)
    for i, place in enumerate(parts.places):
        place.vector.input(
            with_notice(partial(act.pick_vector, i == 0), 4), [key, place.vector],
            [parts.notice, place.scale, place.bar, parts.preset, parts.note], **local,
        )  # fmt: skip
        place.remove.click(with_notice(partial(act.remove, i), len(mix)), now, [parts.notice, *mix], **local)
    parts.side.change(
        None, parts.side, parts.instruction, js="(side) => ({visible: side === 'prompt', __type__: 'update'})", **QUIET
    )


def _chat(tab: TabContext, parts: SteerParts, act: SteerActions) -> None:
    """Send, stop, retry, edit, clear, colour."""
    box, key = parts.box, tab.bank_key
    panes = [parts.left, parts.right]
    shown = [parts.left, parts.right, parts.head, parts.tokens]
    busy: dict[str, Any] = {
        "api_visibility": "private", "show_progress": "minimal", "show_progress_on": parts.right, **MODEL_EVENT,
    }  # fmt: skip
    values = [key, parts.colour, *panes, *parts.values]
    sent = gr.on(
        [box.send.click, box.text.submit],
        with_notice(act.send, 5), [box.text, *values], [parts.notice, box.text, *shown], **busy,
    )  # fmt: skip
    repeated = box.retry.click(with_notice(act.retry, 4), values, [parts.notice, *shown], cancels=[sent], **busy)
    coloured = parts.colour.change(with_notice(act.colour, 1), values, [parts.notice, parts.tokens], **busy)
    running = [sent, repeated, coloured]
    box.stop.click(None, cancels=running, **QUIET)
    box.edit.click(
        with_notice(act.edit, 4), panes, [parts.notice, box.text, *panes, parts.tokens],
        cancels=running, queue=False, **QUIET,
    )  # fmt: skip
    box.clear.click(
        with_notice(act.clear, 4), [key, *parts.values], [parts.notice, *shown], cancels=running, queue=False, **QUIET
    )


def _share(tab: TabContext, parts: SteerParts, act: SteerActions) -> None:
    """Link, files, code."""
    share = parts.share
    values = [tab.bank_key, parts.left, parts.right, *parts.values]
    quick: dict[str, Any] = QUIET | {"queue": False}
    share.link.click(
        with_notice(act.link, 1), [tab.bank_key, parts.box.text, parts.left, *parts.values],
        [parts.notice, share.address], **quick,
    ).then(None, share.address, share.address, js=ADDRESS, **QUIET)  # fmt: skip
    share.code.click(with_notice(act.code, 1), values, [parts.notice, share.source], **quick)
    for button, kind, ending in (
        (share.json, "application/json", "json"),
        (share.markdown, "text/markdown", "md"),
    ):
        button.click(with_notice(partial(act.file, ending), 1), values, [parts.notice, share.file], **quick).then(
            None, share.file, None, js=SAVE.format(kind=kind, ending=ending), **QUIET
        )


def _arrivals(tab: TabContext, parts: SteerParts, act: SteerActions, count: gr.State) -> None:
    """A link that is opened, another bank, and a vector sent by another tab."""
    mix = _mix_outputs(parts, count)
    local: dict[str, Any] = QUIET | {"queue": False}
    chosen = [parts.preset, parts.note, parts.head, *mix]
    tab.pick.change(with_notice(act.show_bank, len(chosen)), [tab.bank_key, tab.pick], [parts.notice, *chosen], **local)
    before = gr.State(DEFAULT_KEY)
    places = [c for p in parts.places for c in (p.vector, p.scale)]
    followed = [before, *chosen, parts.left, parts.right, parts.tokens, parts.settings[0]]
    tab.bank_key.change(
        with_notice(act.follow, len(followed)), [tab.bank_key, before, tab.pick, count, *places],
        [parts.notice, *followed], **local,
    )  # fmt: skip

    controls = [*chosen, parts.box.text, parts.side, parts.instruction, *parts.settings]
    opened = [tab.bank_key, before, parts.left, parts.right, *controls]
    arrival = Arrival(act, ModelsActions(tab).open)

    def arrive(request: gr.Request) -> Iterator[Any]:
        yield from arrival.open(dict(request.query_params), len(opened))

    page = gr.context.Context.root_block
    assert page is not None
    page.load(
        with_notice(arrive, len(opened)), None, [parts.notice, *opened], concurrency_limit=4, **QUIET
    )  # queued, or the key's change is not told
