"""The Steer tab's events as methods: values of components in, values of components out."""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import gradio as gr

from melbo.app.choices import (
    Comparison,
    best_scale,
    lit,
    opening,
    picker,
    prepared,
    presets,
    scale_limit,
    scale_step,
    system_prompt,
    usual_scale,
    vector_note,
)
from melbo.app.context import Context
from melbo.app.conversation import before_last_question, from_view, to_view, turn
from melbo.app.notice import hint
from melbo.app.tabs.steer.export import as_code, as_json, as_markdown
from melbo.app.tabs.steer.handlers import Update, again, compare, last_changes
from melbo.app.tabs.steer.html import head_html, note_html, range_html, tokens_html
from melbo.app.tabs.steer.link import place_of, to_query
from melbo.app.tabs.steer.settings import MAX_MIX, Settings, read_settings
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError

Entries = list[tuple[int | None, float]]
"""Vector and scale of each place that is shown; None: not chosen yet."""


class SteerActions:
    """What the tab's events do, for one shared context. Holds nothing of any visitor."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._compare = context.on_device(compare)
        self._again = context.on_device(again)
        self._changes = context.on_device(last_changes)

    def send(self, message: str, key: str, colour: bool, left: Any, right: Any, *values: Any) -> Iterator[Any]:
        """Answer `message`; yields the emptied message box, both panes, the right pane's head, the coloured tokens."""
        bank, settings = self.context.banks.get(key), read_settings(values)
        updates = self._compare(bank, message or "", from_view(left), from_view(right), settings)
        for shown in self._shown(bank, settings, colour, updates):
            yield (shown[0], "", *shown[1:])

    def retry(self, key: str, colour: bool, left: Any, right: Any, *values: Any) -> Iterator[Any]:
        """Answer the last question again; yields as `send`, without the message box."""
        bank, settings = self.context.banks.get(key), read_settings(values)
        yield from self._shown(bank, settings, colour, self._again(bank, from_view(left), from_view(right), settings))

    def moved(self, key: str, colour: bool, head: str, left: Any, right: Any, *values: Any) -> Iterator[Any]:
        """As `retry`, where the controls are no longer those that the right pane's head names; the head alone where
        nothing was asked yet.
        """
        now = head_html(self.context.banks.get(key), read_settings(values))
        if head == now or before_last_question(from_view(left))[1] is None:
            yield gr.skip(), gr.skip(), now, gr.skip()
        else:
            yield from self.retry(key, colour, left, right, *values)

    def lit(self, key: str, count: int, *places: Any) -> int | None:
        """The preset to mark."""
        return lit(self.context.banks.get(key), [e for e in _entries(count, places) if e[0] is not None])

    def _shown(
        self, bank: VectorBank, settings: Settings, colour: bool, updates: Generator[Update, None, None]
    ) -> Iterator[tuple[Any, ...]]:
        """Notice, panes, head and tokens for each update."""
        head, said, tokens = head_html(bank, settings), "", ""
        with closing(updates):
            for update in updates:
                said = hint(update.notice) if update.notice else said
                if update.finished and colour:
                    tokens = tokens_html(self._changes(bank, update.steered, settings))
                panes = (to_view(update.unsteered, update.finished), to_view(update.steered, update.finished))
                yield (said, *panes, head, tokens)

    def colour(self, key: str, colour: bool, _left: Any, right: Any, *values: Any) -> str:
        """The last answer's tokens in colour, or nothing where the switch is off."""
        if not colour:
            return ""
        bank = self.context.banks.get(key)
        return tokens_html(self._changes(bank, from_view(right), read_settings(values)))

    def edit(self, left: Any, right: Any) -> tuple[Any, ...]:
        """The last question back into the message box, its turn out of both panes, no tokens."""
        past, question = before_last_question(from_view(left))
        other, _ = before_last_question(from_view(right))
        return question or "", to_view(past), to_view(other), ""

    def clear(self, key: str, *values: Any) -> tuple[Any, ...]:
        """Empty panes, a head that fits the controls, no tokens."""
        try:
            settings = read_settings(values)
        except ConfigError:
            settings = None
        return [], [], head_html(self.context.banks.get(key), settings), ""

    def mix(self, bank: VectorBank, entries: Entries) -> tuple[Any, ...]:
        """Row, vector, scale and range of each place, the button that adds one, and how many are shown."""
        found: list[Any] = []
        limit = scale_limit(bank)
        for i in range(MAX_MIX):
            vector, scale = entries[i] if i < len(entries) else (None, usual_scale(bank))
            row = gr.Row(visible=i < len(entries))
            slider = gr.Slider(-limit, limit, value=scale, step=scale_step(limit))
            found += [row, gr.Dropdown(choices=picker(bank), value=vector), slider, range_html(bank, vector)]
        return (*found, gr.Button(visible=len(entries) < MAX_MIX), len(entries))

    def pick_preset(self, key: str, position: int, left: Any, right: Any) -> tuple[Any, ...]:
        """Note, panes, head and mix of a preset. A conversation stays; a prepared comparison gives way to the preset's
        own.
        """
        bank = self.context.banks.get(key)
        offered = presets(bank)
        if not isinstance(position, int) or not 0 <= position < len(offered):
            raise ConfigError("this bank has no such preset; choose another one.")
        preset, panes = offered[position], (gr.skip(), gr.skip(), gr.skip())
        shown = [c for c in (prepared(bank, p) for p in offered) if c is not None]
        now = (from_view(left), from_view(right))
        untouched = [(turn(c.prompt, c.unsteered), turn(c.prompt, c.steered)) for c in shown]
        example = prepared(bank, preset)
        if example is not None and now in [([], []), *untouched]:
            head = head_html(bank, Settings(((preset.vector, example.scale),)))
            panes = (*views(example), head)
        return (note_html(preset.note), *panes, *self.mix(bank, [(preset.vector, preset.scale)]))

    def preset_choices(self, bank: VectorBank) -> list[tuple[str, int]]:
        """The presets' names and numbers."""
        return [(preset.name, i) for i, preset in enumerate(presets(bank))]

    def pick_vector(self, first: bool, key: str, vector: int | None) -> tuple[Any, ...]:
        """Scale and range of the vector that was picked, the preset to mark (as if it were alone), its note."""
        bank = self.context.banks.get(key)
        if vector is None:
            return gr.skip(), "", None if first else gr.skip(), "" if first else gr.skip()
        bank.vector(vector)
        known = (best_scale(bank, vector), range_html(bank, vector))
        if not first:
            return (*known, gr.skip(), gr.skip())
        return (*known, lit(bank, [(vector, known[0])]), note_html(vector_note(bank, vector)))

    def add(self, key: str, count: int, *places: Any) -> tuple[Any, ...]:
        """The mix with one more place, empty."""
        bank = self.context.banks.get(key)
        return self.mix(bank, [*_entries(count, places), (None, usual_scale(bank))][:MAX_MIX])

    def remove(self, place: int, key: str, count: int, *places: Any) -> tuple[Any, ...]:
        """The mix without this place."""
        entries = _entries(count, places)
        return self.mix(self.context.banks.get(key), entries[:place] + entries[place + 1 :])

    def link(self, key: str, message: str, left: Any, *values: Any) -> Any:
        """The query string for the message, or else for the last question."""
        _, question = before_last_question(from_view(left))
        bank, asked = self.context.banks.get(key), (message or "").strip() or question or ""
        query = to_query(bank, read_settings(values), asked, place_of(self.context, bank))
        return gr.Textbox(value=query, visible=True)

    def code(self, key: str, left: Any, right: Any, *values: Any) -> Any:
        """Python that repeats the last answer."""
        bank, settings = self.context.banks.get(key), read_settings(values)
        space = None if self.context.limits.local_files else os.environ.get("SPACE_ID", "")
        text = as_code(self.context.model(bank), bank, from_view(left), from_view(right), settings, space)
        return gr.Code(value=text, visible=True)

    def file(self, ending: str, key: str, left: Any, right: Any, *values: Any) -> str:
        """The conversation as the text of a file."""
        write = as_json if ending == "json" else as_markdown
        bank, settings = self.context.banks.get(key), read_settings(values)
        return write(self.context.model(bank), bank, from_view(left), from_view(right), settings)

    def show_bank(self, key: str, pick: Mapping[str, Any] | None) -> tuple[Any, ...]:
        """Presets, note, head and mix of a bank: the vector that another tab sent, or else the first preset."""
        bank = self.context.banks.get(key)
        offered = presets(bank)
        vector, scale, note, shown = offered[0].vector, offered[0].scale, offered[0].note, opening(bank)
        scale = shown.scale if shown else scale
        if pick is not None and pick["bank"] == key:
            vector, scale = pick["vector"], pick["scale"]
            bank.vector(vector)
            note = vector_note(bank, vector)
        choices = self.preset_choices(bank)
        head = head_html(bank, Settings(((vector, scale),)))
        preset = gr.Radio(choices=choices, value=lit(bank, [(vector, scale)]))
        return (preset, note_html(note), head, *self.mix(bank, [(vector, scale)]))

    def show_pick(self, key: str, pick: Mapping[str, Any] | None) -> tuple[Any, ...]:
        """As `show_bank`, without the head, which names what made the answer below it."""
        preset, note, _, *mix = self.show_bank(key, pick)
        return (preset, note, *mix)

    def show_opening(self, key: str) -> tuple[Any, ...]:
        """Panes, tokens, and system prompt of a bank that has just been chosen."""
        bank = self.context.banks.get(key)
        return (*views(opening(bank)), "", system_prompt(bank))

    def follow(
        self, key: str, before: str, pick: Mapping[str, Any] | None, count: int, *places: Any
    ) -> tuple[Any, ...]:
        """The key again, then as `show_bank` and `show_opening`. Where only labels have changed, they alone are told
        anew: mix and conversation stay.
        """
        if not self.context.banks.same_vectors(before, key):
            return (key, *self.show_bank(key, pick), *self.show_opening(key))
        bank, same = self.context.banks.get(key), gr.skip()
        preset = gr.update(choices=self.preset_choices(bank))
        return (key, preset, same, same, *self.mix(bank, _entries(count, places)), same, same, same, same)


def views(shown: Comparison | None) -> tuple[list[Any], list[Any]]:
    """Both panes with a prepared comparison."""
    if shown is None:
        return [], []
    return to_view(turn(shown.prompt, shown.unsteered)), to_view(turn(shown.prompt, shown.steered))


def _entries(count: int, places: tuple[Any, ...]) -> Entries:
    return list(zip(places[::2], places[1::2], strict=True))[:count]
