"""What the Inspect tab's events do: values of components in, values of components out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import gradio as gr

from melbo.app.choices import best_scale, checked_index, first_vector, picker
from melbo.app.jobs.event import JobEvent, JobEvents, updates
from melbo.app.tab_context import TabContext
from melbo.app.tabs.inspect.findings import LIVE, Findings, mark_of
from melbo.app.tabs.inspect.handlers import (
    activating_steps,
    description_steps,
    geometry_steps,
    lens_steps,
    read_text,
    sae_steps,
    sign_of,
)
from melbo.app.tabs.inspect.html import descriptions_html, examples_html, own_text_html
from melbo.app.tabs.inspect.source import read_source, remove
from melbo.app.widgets.progress import empty_html, progress_html

STOPS = 5
"""Buttons that stop a run."""
_OWN = empty_html("Write something and press Read: each token shows how active the vector is there.")
_WORDS = empty_html("Asks the model what “X” means while the vector stands in its place.")


class InspectActions:
    """The tab's events, for one page."""

    def __init__(self, tab: TabContext) -> None:
        self.tab = tab
        self.context = tab.context
        self.banks = tab.context.banks
        self.found = Findings(tab.context.banks)
        on_device = tab.context.on_device
        self._activating, self._words = on_device(activating_steps), on_device(description_steps)
        self._text = on_device(read_text)
        self._measured: dict[str, tuple[Callable[..., JobEvents[None, Any]], Callable[[str, int], str], bool]] = {
            "sae": (on_device(sae_steps), self.found.features, False),
            "lens": (on_device(lens_steps), self.found.lens, True),
            "geometry": (on_device(geometry_steps), self.found.geometry, False),
        }
        """By the kind of what is kept: the work, the section that shows it, and whether it is of one vector alone."""

    def opened(
        self, key: str, before: str = "", look: Mapping[str, Any] | None = None, index: Any = None
    ) -> tuple[Any, ...]:
        """The key again, vectors to choose from, then as `show`: the vector that another tab sent, or the one before
        where only labels have changed (what was read of it stays), or the first that is no dud.
        """
        bank = self.banks.get(key)
        sent = look is not None and look["bank"] == key
        same = self.context.banks.same_vectors(before, key) and index is not None
        number = look["vector"] if sent and look is not None else index if same else first_vector(bank)
        shown = self.show(key, number)
        if same and number == index:
            shown = (*shown[:5], gr.skip(), gr.skip(), *shown[7:])
        return key, gr.update(choices=picker(bank), value=checked_index(bank, number)), *shown

    def show(self, key: str, index: Any) -> tuple[Any, ...]:
        """The button's text, the four sections, one's own text and the model's words emptied, then three buttons for
        what can still be computed: features, tokens, geometry; and the stop buttons, which go.
        """
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        button = f"Steer with {number} × {best_scale(bank, number):.3g}"
        features, tokens, geometry = self.found.missing(key, number)
        buttons = (
            gr.update(visible=features),
            gr.update(visible=tokens),
            gr.update(visible=bool(geometry), value=geometry),
        )
        stops = (gr.update(visible=False) for _ in range(STOPS))
        return button, *self.found.sections(key, number), _OWN, _WORDS, *buttons, *stops

    def find_examples(self, key: str, index: Any, text: Any, path: Any = None) -> Iterator[Any]:
        """The section as passages are looked for, in pasted text, in the organism's chats or in a file."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        source = read_source(self.context, bank, text, path)

        def finish(report: Any) -> str:
            if source.kind == "organism":
                self.found.kept.put(("activating", mark_of(bank), number), report)
            return examples_html(report, number, LIVE)

        yield from self._shown(
            self._activating(bank, number, source), finish, partial(self.found.examples, key, number)
        )

    def find_in_file(self, key: str, index: Any, path: Any) -> Iterator[Any]:
        """The same in an uploaded file, which is deleted then."""
        try:
            yield from self.find_examples(key, index, "", path or "none")
        finally:
            remove(path)

    def find(self, kind: str, key: str, index: Any) -> Iterator[Any]:
        """A section as it is measured; what is found is kept for all who use the same vectors."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        steps, section, of_one = self._measured[kind]
        given = (number,) if of_one else ()
        shown = partial(section, key, number)

        def finish(result: Any) -> str:
            self.found.kept.put((kind, mark_of(bank), *given), result)
            return shown()

        yield from self._shown(steps(bank, *given), finish, shown)

    def ask(self, key: str, index: Any) -> Iterator[Any]:
        """The section as the model is asked for its own words."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        size = sum(p.numel() for p in self.context.model(bank).model.parameters())

        def finish(found: Any) -> str:
            return descriptions_html(found, sign_of(bank, number), size)

        yield from self._shown(self._words(bank, number), finish, partial(self.silent, key, number))

    def read(self, key: str, index: Any, text: Any, along: Any, as_chat: bool, random: bool) -> str:
        """One's own text, coloured."""
        bank = self.banks.get(key)
        found, scale = self._text(bank, checked_index(bank, index), text, along, as_chat)
        return own_text_html(found, scale, bool(random))

    def read_again(self, key: str, index: Any, text: Any, *choices: Any) -> Any:
        """The same where there is a text; nothing else changes without one."""
        return self.read(key, index, text, *choices) if str(text or "").strip() else gr.skip()

    def silent(self, key: str, index: Any) -> str:
        """The model's words, before it was asked."""
        checked_index(self.banks.get(key), index)
        return _WORDS

    def steer(self, key: str, index: Any) -> tuple[Any, ...]:
        """Values for the tab's pick and tabs."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        return self.tab.steer_with(key, number, best_scale(bank, number)), self.tab.go_to("steer")

    @staticmethod
    def _shown(
        steps: JobEvents[None, Any], finish: Callable[[Any], str], shown: Callable[[], str]
    ) -> Iterator[tuple[Any, Any]]:
        """Section and stop button: a bar while the work goes on, then what `finish` makes of its result, or what was
        `shown` before where it fails.
        """
        going, over = gr.update(visible=True), gr.update(visible=False)
        yield progress_html(JobEvent("Starting")), going
        try:
            with closing(updates(steps)) as events:
                for event in events:
                    if event.result is not None:
                        yield finish(event.result), over
                    else:
                        yield progress_html(event) if event.phase else gr.skip(), gr.skip()
        except Exception:
            yield shown(), over
            raise
