"""The Bank tab: a table and a map of all vectors, one vector's page, and what can be done with the bank."""

from functools import partial
from typing import Any

import gradio as gr

from melbo.app.context import visitors_log_in
from melbo.app.events import LOCAL, PRIVATE, SHARED, connect, model_event
from melbo.app.notice import notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.actions import BankActions
from melbo.app.tabs.bank.handlers import MAX_LABEL, MAX_NOTE, MAX_QUERY
from melbo.app.widgets.controls import downloads_by, hidden_file, panel

TABLE = ("text", "table")
PAGE = (*TABLE, "vector")
"""Style sheets."""


class BankTab:
    """The tab's components and events; made inside its gr.Tab."""

    def __init__(self, tab: TabContext) -> None:
        self.tab, self.act = tab, BankActions(tab)
        _, box, first, table, plane, html, lens, steer, label, note, numbers = self.act.opened(tab.context.own_bank)
        self.chosen, self.own = gr.State(first), gr.State("")
        self.said = notice("bank-notice")
        self.on = partial(connect, self.said)
        self._search(box)
        self.table = panel(table, *TABLE, elem_id="bank-table", pick=True)
        with gr.Row(elem_id="bank-lower"):
            with gr.Column(scale=5, min_width=300):
                with gr.Row():
                    self.steer = gr.Button(steer, variant="primary", min_width=0, elem_id="bank-steer")
                    self.tokens = gr.Button("Read its tokens", min_width=0, elem_id="bank-tokens")
                    self.inspect = gr.Button("Inspect", min_width=0, elem_id="bank-inspect")
                html_shown = panel(html, *PAGE, elem_id="bank-page")
                self.lens = panel(lens, *PAGE, elem_id="bank-lens")
            with gr.Column(scale=3, min_width=300):
                self.map = panel(plane, "text", "map", elem_id="bank-map", pick=True)
                with gr.Accordion("Edit this vector", open=False):
                    self.label = gr.Textbox(label, label="Label", max_length=MAX_LABEL, elem_id="bank-label")
                    room: dict[str, Any] = {"max_length": MAX_NOTE, "lines": 2, "max_lines": 6}
                    self.note = gr.Textbox(note, label="Note", elem_id="bank-note", **room)
                    self.save = gr.Button("Save", size="sm", elem_id="bank-save")
                self._selection(numbers)
                self._download_and_push()
        self.overview = [self.table, self.map]
        self.page = [html_shown, self.lens, self.steer, self.label, self.note]
        """Outputs of `BankActions.page`."""
        self._connect_overview()
        self._connect_page()

    def _search(self, box: dict[str, Any]) -> None:
        with gr.Row(elem_id="bank-find"):
            self.query = gr.Textbox(
                label="Search",
                placeholder="Label, tag or number",
                show_label=False,
                container=False,
                max_length=MAX_QUERY,
                scale=4,
                min_width=260,
                elem_id="bank-search",
            )
            start = {key: box[key] for key in ("label", "value", "interactive")}
            self.duds = gr.Checkbox(**start, container=False, scale=1, min_width=190, elem_id="bank-duds")

    def _selection(self, numbers: str) -> None:
        key = self.tab.bank_key
        with gr.Accordion("Select into a new bank", open=False):
            self.numbers = gr.Textbox(numbers, label="Vectors", info="Such as 0, 3, 5-9.", elem_id="bank-numbers")
            with gr.Row():
                take = gr.Button("Take those on show", size="sm", min_width=0)
                make = gr.Button("Make the bank", size="sm", min_width=0, elem_id="bank-make")
        self.on(take.click, self.act.shown, [key, self.query, self.duds], [self.numbers], **LOCAL)
        self.on(make.click, self.act.select, [key, self.numbers], [key], **SHARED)

    def _download_and_push(self) -> None:
        with gr.Accordion("Download and push", open=False):
            download = gr.Button("Download (zip)", size="sm", elem_id="bank-download")
            downloads_by(download, self.act.download, self.tab.bank_key, self.said, hidden_file("bank-file"))
            login = visitors_log_in()
            if not login and not self.tab.context.limits.local_files:
                return
            if login:
                gr.LoginButton(size="sm")
            repo = gr.Textbox(
                label="Repository on the Hub",
                placeholder="you/your-bank",
                max_length=200,
                elem_id="bank-repo",
                info="Uses your login." if login else "Uses this machine's login: `hf auth login` or HF_TOKEN.",
            )
            private = gr.Checkbox(label="Private", value=True, container=False)
            push = gr.Button("Push", size="sm", elem_id="bank-push")
            pushed = panel("", *PAGE)
        function = self.act.push_as if login else self.act.push_here
        self.on(push.click, function, [self.tab.bank_key, repo, private], [pushed], concurrency_limit=4, **PRIVATE)

    def _connect_overview(self) -> None:
        """Search, clicks in table and map, and another bank."""
        key, act, search = self.tab.bank_key, self.act, [self.query, self.duds]
        typed = [self.query.input, self.duds.input]
        self.on(typed, act.filter, [key, *search, self.chosen], self.overview, trigger_mode="always_last", **LOCAL)
        shown = [self.chosen, *self.overview, *self.page]
        for place in self.overview:
            self.on(place.select, act.pick, [key, *search], shown, **LOCAL)
        self.on(key.change, act.open, [key, self.own], [*search, *shown, self.numbers], **LOCAL)

    def _connect_page(self) -> None:
        """Steer, tokens, all that is known, save."""
        tab, act, chosen = self.tab, self.act, [self.tab.bank_key, self.chosen]
        self.on(self.steer.click, partial(act.send, "steer"), chosen, [tab.pick, tab.tabs], **SHARED)
        self.on(self.inspect.click, partial(act.send, "inspect"), chosen, [tab.look, tab.tabs], **SHARED)
        self.on(self.tokens.click, act.tokens, chosen, [self.lens], **model_event(self.lens))
        edited = [*chosen, self.label, self.note, self.query, self.duds]
        self.on(self.save.click, act.save, edited, [tab.bank_key, self.own, *self.overview, *self.page], **SHARED)
