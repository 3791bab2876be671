"""The Steer tab: which function each event calls."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from melbo.app.context import DEFAULT_KEY
from melbo.app.events import LOCAL, QUIET, SLOW, connect, model_event
from melbo.app.render import script
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.steer.actions import SteerActions
from melbo.app.tabs.steer.arrival import Arrival
from melbo.app.tabs.steer.parts import SteerParts


class SteerTab:
    """The tab's components and events; made inside its gr.Tab."""

    def __init__(self, tab: TabContext) -> None:
        self.tab, self.act, self.parts = tab, SteerActions(tab.context), SteerParts(tab.context)
        parts, count = self.parts, gr.State(1)
        self.on = partial(connect, parts.said)
        self.panes = [parts.left, parts.right]
        each = [c for p in parts.places for c in (p.row, p.vector, p.scale, p.bar)]
        self.mix = [*each, parts.add, count]
        """Outputs of `SteerActions.mix`."""
        self.now = [count, *parts.mix]
        """What is shown of it."""
        self.asked = [tab.bank_key, parts.colour, *self.panes, *parts.values]
        """Inputs of `SteerActions.retry`."""
        self.answered = [*self.panes, parts.head, parts.tokens]
        """Its outputs."""
        again = self._controls()
        self._chat(again)
        self._share()
        self._arrivals()

    def _controls(self) -> list[Any]:
        """Presets, vectors, sides; gives the events that answer again."""
        key, parts, act, on, mix = self.tab.bank_key, self.parts, self.act, self.on, self.mix
        chosen = [parts.note, *self.panes, parts.head, *mix]
        picked = on(parts.preset.input, act.pick_preset, [key, parts.preset, *self.panes], chosen, **LOCAL)
        moved = [*self.asked[:2], parts.head, *self.asked[2:]]
        again: dict[str, Any] = model_event(parts.right) | {"trigger_mode": "always_last"}
        sent = on(self.tab.pick.change, act.show_pick, [key, self.tab.pick], [parts.preset, parts.note, *mix], **LOCAL)
        repeats = [on(after.then, act.moved, moved, self.answered, **again) for after in (picked, sent)]
        repeats.append(on([p.scale.release for p in parts.places], act.moved, moved, self.answered, **again))
        on(parts.add.click, act.add, [key, *self.now], mix, **LOCAL)
        mark: dict[str, Any] = LOCAL | {"trigger_mode": "always_last"}
        for i, place in enumerate(parts.places):
            known = [place.scale, place.bar, parts.preset, parts.note]
            on(place.vector.input, partial(act.pick_vector, i == 0), [key, place.vector], known, **LOCAL)
            removed = on(place.remove.click, partial(act.remove, i), [key, *self.now], mix, **LOCAL)
            for changed in (place.scale.input, removed.then, *([place.vector.input] if i else [])):
                on(changed, act.lit, [key, *self.now], [parts.preset], **mark)
        told = "(side) => ({visible: side === 'prompt', __type__: 'update'})"
        parts.side.change(None, parts.side, parts.instruction, js=told, **QUIET)
        return repeats

    def _chat(self, repeats: list[Any]) -> None:
        """Send, stop, retry, edit, clear, colour.

        Args:
            repeats: further events that answer.
        """
        key, parts, act, on = self.tab.bank_key, self.parts, self.act, self.on
        values, shown, busy = self.asked, self.answered, model_event(parts.right)
        asked = [parts.send.click, parts.text.submit]
        sent = on(asked, act.send, [parts.text, *values], [parts.text, *shown], cancels=repeats, **busy)
        repeated = on(parts.retry.click, act.retry, values, shown, cancels=[sent, *repeats], **busy)
        coloured = on(parts.colour.change, act.colour, values, [parts.tokens], **busy)
        stops: dict[str, Any] = {"cancels": [sent, repeated, coloured, *repeats]}
        parts.stop.click(None, **stops, **QUIET)
        on(parts.edit.click, act.edit, self.panes, [parts.text, *self.panes, parts.tokens], **stops, **LOCAL)
        on(parts.clear.click, act.clear, [key, *parts.values], shown, **stops, **LOCAL)

    def _share(self) -> None:
        """Link, files, code."""
        key, parts, act, on = self.tab.bank_key, self.parts, self.act, self.on
        asked = [key, parts.text, parts.left, *parts.values]
        linked = on(parts.link.click, act.link, asked, [parts.address], **LOCAL)
        linked.then(None, parts.address, parts.address, js=script("address"), **QUIET)
        values = [key, *self.panes, *parts.values]
        on(parts.code.click, act.code, values, [parts.source], **LOCAL)
        for button, kind, ending in ((parts.json, "application/json", "json"), (parts.markdown, "text/markdown", "md")):
            written = on(button.click, partial(act.file, ending), values, [parts.file], **LOCAL)
            saved = f"(text) => ({script('save')})(text, '{kind}', '{ending}')"
            written.then(None, parts.file, None, js=saved, **QUIET)

    def _arrivals(self) -> None:
        """A link that is opened, and another bank."""
        tab, parts, act, on = self.tab, self.parts, self.act, self.on
        chosen = [parts.preset, parts.note, parts.head, *self.mix]
        before = gr.State(DEFAULT_KEY)
        followed = [before, *chosen, *self.panes, parts.tokens, parts.settings[0]]
        on(tab.bank_key.change, act.follow, [tab.bank_key, before, tab.pick, *self.now], followed, **LOCAL)

        controls = [*chosen, parts.text, parts.side, parts.instruction, *parts.settings]
        opened = [tab.bank_key, before, *self.panes, *controls]
        arrival = Arrival(act, ModelsActions(tab).open)

        def arrive(request: gr.Request) -> Iterator[Any]:
            yield from arrival.open(dict(request.query_params), len(opened))

        page = gr.context.Context.root_block
        assert page is not None
        on(page.load, arrive, None, opened, **SLOW)  # queued, or the key's change is not told
