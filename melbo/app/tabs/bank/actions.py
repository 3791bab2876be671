"""What the Bank tab's events do: values of components in, values of components out."""

from functools import partial
from typing import Any

import gradio as gr

from melbo.app.choices import best_scale, checked_index, first_vector
from melbo.app.downloads import Downloads, bank_name, zip_bank
from melbo.app.notice import hint
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.effect_map import map_svg
from melbo.app.tabs.bank.handlers import as_text, edited, parse_indices, push, read_tokens, search, vector_rows
from melbo.app.tabs.bank.html import lens_html, page_html, pushed_html, table_html
from melbo.bank.vector_bank import VectorBank
from melbo.errors import HubError
from melbo.inspect.stored import activating_examples, sae_neighbours


class BankActions:
    """The tab's events, for one page."""

    def __init__(self, tab: TabContext) -> None:
        self.tab = tab
        self.banks = tab.context.banks
        self.lens = tab.context.on_device(read_tokens)
        self.files = Downloads()

    def overview(self, bank: VectorBank, query: str | None, duds: bool, chosen: int) -> tuple[str, str]:
        """Table and map."""
        rows = vector_rows(bank)
        shown = search(rows, query, bool(duds))
        return table_html(shown, chosen, len(rows)), map_svg(bank, rows, shown, chosen)

    def page(self, bank: VectorBank, index: int) -> tuple[Any, ...]:
        """Page, the lens emptied, the button's text, label and note to edit."""
        page = page_html(bank, index, activating_examples(bank, index), sae_neighbours(bank, index))
        note = bank.annotation(index)
        return (
            page,
            "",
            f"Steer with {index} × {best_scale(bank, index):.3g}",
            note.label.strip(),
            note.note.strip(),
        )

    def opened(self, bank: VectorBank) -> tuple[Any, ...]:
        """All that a new bank changes: search, duds, chosen, table, map, page (5), selection."""
        chosen = first_vector(bank)
        rows = vector_rows(bank)
        active = [row.index for row in rows if not row.dud]
        duds = len(rows) - len(active)
        box = gr.update(label=f"Show duds ({duds})", value=not active, interactive=duds > 0)
        start = self.overview(bank, "", not active, chosen)
        return "", box, chosen, *start, *self.page(bank, chosen), as_text(active or [row.index for row in rows])

    def open(self, key: str, own: str = "") -> tuple[Any, ...]:
        """The notice left as it is, then as `opened`; nothing at all where the key is of this tab's own edit."""
        if key == own:
            return tuple(gr.skip() for _ in range(12))
        return gr.skip(), *self.opened(self.banks.get(key))

    def filter(self, key: str, query: str, duds: bool, chosen: int) -> tuple[str, str]:
        """Table and map for another search."""
        return self.overview(self.banks.get(key), query, duds, chosen)

    def pick(self, event: gr.EventData, key: str, query: str, duds: bool) -> tuple[Any, ...]:
        """The number that was clicked, table, map, page (5)."""
        bank = self.banks.get(key)
        index = checked_index(bank, (event._data or {}).get("index"))
        return index, *self.overview(bank, query, duds, index), *self.page(bank, index)

    def send(self, to: str, key: str, chosen: int) -> tuple[Any, ...]:
        """The vector for the tab `to`: values for `pick` (Steer) or `look` (Inspect), and for `tabs`."""
        bank = self.banks.get(key)
        index = checked_index(bank, chosen)
        return self.tab.steer_with(key, index, best_scale(bank, index)), self.tab.go_to(to)

    def tokens(self, key: str, chosen: int) -> str:
        """The logit lens."""
        bank = self.banks.get(key)
        return lens_html(self.lens(bank, checked_index(bank, chosen)))

    def save(self, key: str, chosen: int, label: str, note: str, query: str, duds: bool) -> tuple[Any, ...]:
        """Said, key of the edited bank twice, table, map, page (5)."""
        bank = self.banks.get(key)
        index = checked_index(bank, chosen)
        changed = edited(bank, index, label, note)
        new = self.banks.put(changed)
        told = hint("Saved in your copy of the bank. Download or push it to keep it.")
        return told, new, new, *self.overview(changed, query, duds, index), *self.page(changed, index)

    def shown(self, key: str, query: str, duds: bool) -> str:
        """Numbers of the rows on show, as text."""
        return as_text(sorted(row.index for row in search(vector_rows(self.banks.get(key)), query, bool(duds))))

    def select(self, key: str, numbers: str) -> tuple[str, str]:
        """Said, and the key of the new bank."""
        bank = self.banks.get(key)
        chosen = bank.select(parse_indices(bank, numbers))
        return hint(f"A new bank of {len(chosen)} vectors is in use."), self.banks.put(chosen)

    def download(self, key: str) -> str:
        """Path of the bank's zip."""
        bank = self.banks.get(key)
        return self.files.write(f"{bank_name(bank)}.zip", partial(zip_bank, bank))

    def push_here(self, key: str, repo: str, private: bool) -> str:
        """Push with this machine's own login."""
        return pushed_html(push(self.banks.get(key), repo, private, None))

    def push_as(self, key: str, repo: str, private: bool, token: gr.OAuthToken | None) -> str:
        """Push with the visitor's login."""
        if token is None:
            raise HubError("log in first; the button is above.")
        return pushed_html(push(self.banks.get(key), repo, private, token.token))
