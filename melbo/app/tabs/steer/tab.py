"""The Steer tab: which function each event calls."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from melbo.app.context import DEFAULT_KEY
from melbo.app.events import LOCAL, QUIET, SLOW, model_event
from melbo.app.notice import with_notice
from melbo.app.render import script
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.steer.actions import SteerActions
from melbo.app.tabs.steer.arrival import Arrival
from melbo.app.tabs.steer.parts import SteerParts, build_parts


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    parts = build_parts(tab.context)
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
    parts.preset.input(
        with_notice(act.pick_preset, len(mix) + 4),
        [key, parts.preset, parts.left, parts.right],
        [parts.notice, parts.note, parts.left, parts.right, parts.head, *mix],
        **LOCAL,
    )
    now = [key, count, *(c for p in parts.places for c in (p.vector, p.scale))]
    parts.add.click(with_notice(act.add, len(mix)), now, [parts.notice, *mix], **LOCAL)
    for i, place in enumerate(parts.places):
        place.vector.input(
            with_notice(partial(act.pick_vector, i == 0), 4),
            [key, place.vector],
            [parts.notice, place.scale, place.bar, parts.preset, parts.note],
            **LOCAL,
        )
        place.remove.click(with_notice(partial(act.remove, i), len(mix)), now, [parts.notice, *mix], **LOCAL)
    parts.side.change(
        None, parts.side, parts.instruction, js="(side) => ({visible: side === 'prompt', __type__: 'update'})", **QUIET
    )


def _chat(tab: TabContext, parts: SteerParts, act: SteerActions) -> None:
    """Send, stop, retry, edit, clear, colour."""
    box, key = parts.box, tab.bank_key
    panes = [parts.left, parts.right]
    shown = [parts.left, parts.right, parts.head, parts.tokens]
    busy = model_event(parts.right)
    values = [key, parts.colour, *panes, *parts.values]
    sent = gr.on(
        [box.send.click, box.text.submit],
        with_notice(act.send, 5),
        [box.text, *values],
        [parts.notice, box.text, *shown],
        **busy,
    )
    repeated = box.retry.click(with_notice(act.retry, 4), values, [parts.notice, *shown], cancels=[sent], **busy)
    coloured = parts.colour.change(with_notice(act.colour, 1), values, [parts.notice, parts.tokens], **busy)
    running = [sent, repeated, coloured]
    box.stop.click(None, cancels=running, **QUIET)
    box.edit.click(
        with_notice(act.edit, 4), panes, [parts.notice, box.text, *panes, parts.tokens], cancels=running, **LOCAL
    )
    box.clear.click(with_notice(act.clear, 4), [key, *parts.values], [parts.notice, *shown], cancels=running, **LOCAL)


def _share(tab: TabContext, parts: SteerParts, act: SteerActions) -> None:
    """Link, files, code."""
    share = parts.share
    values = [tab.bank_key, parts.left, parts.right, *parts.values]
    share.link.click(
        with_notice(act.link, 1),
        [tab.bank_key, parts.box.text, parts.left, *parts.values],
        [parts.notice, share.address],
        **LOCAL,
    ).then(None, share.address, share.address, js=script("address"), **QUIET)
    share.code.click(with_notice(act.code, 1), values, [parts.notice, share.source], **LOCAL)
    for button, kind, ending in ((share.json, "application/json", "json"), (share.markdown, "text/markdown", "md")):
        button.click(with_notice(partial(act.file, ending), 1), values, [parts.notice, share.file], **LOCAL).then(
            None, share.file, None, js=f"(text) => ({script('save')})(text, '{kind}', '{ending}')", **QUIET
        )


def _arrivals(tab: TabContext, parts: SteerParts, act: SteerActions, count: gr.State) -> None:
    """A link that is opened, another bank, and a vector sent by another tab."""
    mix = _mix_outputs(parts, count)
    chosen = [parts.preset, parts.note, parts.head, *mix]
    tab.pick.change(with_notice(act.show_bank, len(chosen)), [tab.bank_key, tab.pick], [parts.notice, *chosen], **LOCAL)
    before = gr.State(DEFAULT_KEY)
    places = [c for p in parts.places for c in (p.vector, p.scale)]
    followed = [before, *chosen, parts.left, parts.right, parts.tokens, parts.settings[0]]
    tab.bank_key.change(
        with_notice(act.follow, len(followed)),
        [tab.bank_key, before, tab.pick, count, *places],
        [parts.notice, *followed],
        **LOCAL,
    )

    controls = [*chosen, parts.box.text, parts.side, parts.instruction, *parts.settings]
    opened = [tab.bank_key, before, parts.left, parts.right, *controls]
    arrival = Arrival(act, ModelsActions(tab).open)

    def arrive(request: gr.Request) -> Iterator[Any]:
        yield from arrival.open(dict(request.query_params), len(opened))

    page = gr.context.Context.root_block
    assert page is not None
    page.load(
        with_notice(arrive, len(opened)), None, [parts.notice, *opened], **SLOW
    )  # queued, or the key's change is not told
