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
from melbo.app.tabs.inspect.html import descriptions_html, examples_html, lens_html, own_text_html
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
        jobs: tuple[Callable[..., JobEvents[None, Any]], ...] = (
            activating_steps,
            sae_steps,
            geometry_steps,
            lens_steps,
            description_steps,
        )
        self._activating, self._sae, self._geometry, self._lens, self._words = (
            tab.context.on_device(steps) for steps in jobs
        )
        self._text = tab.context.on_device(read_text)

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
        button = f"Steer with {number} × {best_scale(bank, number):g}"
        features, tokens, geometry = self.found.missing(key, number)
        buttons = (
            gr.update(visible=features),
            gr.update(visible=tokens),
            gr.update(visible=bool(geometry), value=geometry),
        )
        stops = (gr.update(visible=False) for _ in range(STOPS))
        return button, *self.found.sections(key, number), _OWN, _WORDS, *buttons, *stops

    def find_examples(self, key: str, index: Any, text: Any) -> Iterator[Any]:
        """The section as passages are looked for, in pasted text or in the organism's chats."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        source = read_source(self.context, bank, text)

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
            bank = self.banks.get(key)
            number = checked_index(bank, index)
            steps = self._activating(bank, number, read_source(self.context, bank, "", path or "none"))
            shown = partial(self.found.examples, key, number)
            yield from self._shown(steps, lambda report: examples_html(report, number, LIVE), shown)
        finally:
            remove(path)

    def find_features(self, key: str, index: Any) -> Iterator[Any]:
        """The section as the bank is compared with the embedded SAE."""
        bank = self.banks.get(key)
        shown = partial(self.found.features, key, checked_index(bank, index))

        def finish(report: Any) -> str:
            self.found.kept.put(("sae", mark_of(bank)), report)
            return shown()

        yield from self._shown(self._sae(bank), finish, shown)

    def find_tokens(self, key: str, index: Any) -> Iterator[Any]:
        """The section as the lens is read."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)

        def finish(reports: Any) -> str:
            self.found.kept.put(("lens", mark_of(bank), number), reports)
            return lens_html(reports, LIVE)

        yield from self._shown(self._lens(bank, number), finish, partial(self.found.lens, key, number))

    def find_geometry(self, key: str, index: Any) -> Iterator[Any]:
        """The section as the bank is measured."""
        bank = self.banks.get(key)
        shown = partial(self.found.geometry, key, checked_index(bank, index))

        def finish(result: Any) -> str:
            self.found.kept.put(("geometry", mark_of(bank)), result)
            return shown()

        yield from self._shown(self._geometry(bank), finish, shown)

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
