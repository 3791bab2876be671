"""What a page opens with where its address is a shared link."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import gradio as gr

from melbo.app.choices import opening, vector_note
from melbo.app.context import DEFAULT_KEY
from melbo.app.notice import hint
from melbo.app.tabs.steer.actions import SteerActions, views
from melbo.app.tabs.steer.html import head_html, note_html
from melbo.app.tabs.steer.link import Shared, check_length, from_query, named_bank
from melbo.bank.vector_bank import VectorBank
from melbo.errors import MelboError

Opener = Callable[[VectorBank, str], Iterator[tuple[str, Any]]]
"""Takes a bank into use, with its model: what is said, and the bank's key once there is one."""


class Arrival:
    """Opens links, for one shared context."""

    def __init__(self, act: SteerActions, opener: Opener) -> None:
        self.act, self.context, self._opener = act, act.context, opener

    def open(self, params: Mapping[str, str], outputs: int) -> Iterator[tuple[Any, ...]]:
        """All controls as a link says; nothing where the address holds none. First what is loading, if anything is.

        Args:
            outputs: number of values, the notice not counted: key, the same key again, both panes, then the controls.
        """
        same = tuple(gr.skip() for _ in range(outputs))
        if "v" not in params:
            yield same
            return
        key, panes = gr.skip(), (gr.skip(), gr.skip())
        try:
            check_length(params)
            bank = self.context.banks.get(DEFAULT_KEY)
            found = named_bank(self.context, params)
            if found is not None:
                bank = found[0]
                shared = self._read(bank, params)
                opened: Any = self._opener(*found)
                with closing(opened):
                    for said, made in opened:
                        key = made
                        yield (said, *same)
                panes = views(opening(bank))
            else:
                shared = self._read(bank, params)
        except MelboError as error:
            yield (hint(f"The link was not opened: {error}"), *same)
            return
        said = hint("This comparison was shared with you. Press Send to run it.")
        yield (said, key, key, *panes, *self._controls(bank, shared))

    def _read(self, bank: VectorBank, params: Mapping[str, str]) -> Shared:
        """What the link holds, within the limits."""
        shared, most = from_query(bank, params), self.context.limits.new_tokens
        assert shared is not None  # it has "v"
        within = min(shared.settings.max_new_tokens, most)
        return replace(shared, settings=replace(shared.settings, max_new_tokens=within))

    def _controls(self, bank: VectorBank, shared: Shared) -> tuple[Any, ...]:
        s = shared.settings
        note = note_html(vector_note(bank, s.mix[0][0]))
        preset = gr.Radio(choices=self.act.preset_choices(bank), value=None)
        instruction = gr.Textbox(value=s.instruction, visible=s.side == "prompt")
        sampling = (s.system, s.temperature, s.top_p, s.max_new_tokens, s.seed, s.positions)
        mix = self.act.mix(bank, list(s.mix))
        return (preset, note, head_html(bank, s), *mix, shared.question, s.side, instruction, *sampling)
