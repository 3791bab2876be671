"""The Bank tab: a table and a map of all vectors, one vector's page, and what can be done with the bank."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import gradio as gr

from melbo.app.context import visitors_log_in
from melbo.app.events import LOCAL, PRIVATE, SHARED, model_event
from melbo.app.notice import notice, with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.actions import BankActions
from melbo.app.tabs.bank.handlers import MAX_LABEL, MAX_NOTE, MAX_QUERY
from melbo.app.widgets.controls import downloads_by, hidden_file
from melbo.app.widgets.panel import panel

TABLE = ("text", "table")
PAGE = (*TABLE, "vector")
"""Style sheets."""


class Overview(NamedTuple):
    """The upper half."""

    query: gr.Textbox
    duds: gr.Checkbox
    table: gr.HTML
    map: gr.HTML


class Page(NamedTuple):
    """One vector: the outputs of `BankActions.page`, then the buttons."""

    html: gr.HTML
    lens: gr.HTML
    steer: gr.Button
    label: gr.Textbox
    note: gr.Textbox
    tokens: gr.Button
    inspect: gr.Button
    save: gr.Button


class Push(NamedTuple):
    """Upload to the Hub."""

    repo: gr.Textbox
    private: gr.Checkbox
    button: gr.Button
    pushed: gr.HTML


class Whole(NamedTuple):
    """What can be done with the whole bank."""

    numbers: gr.Textbox
    take: gr.Button
    make: gr.Button
    download: gr.Button
    file: gr.DownloadButton
    push: Push | None
    """None where nobody can log in."""


def build(tab: TabContext) -> None:
    """Add the tab's content and events; call inside its gr.Tab."""
    act = BankActions(tab)
    bank = tab.context.own_bank
    _, box, first, table, plane, html, lens, steer, label, note, numbers = act.opened(bank)
    chosen, own = gr.State(first), gr.State("")
    said = notice("bank-notice")
    query, duds, rows = _overview(box, table)
    with gr.Row(elem_id="bank-lower"):
        with gr.Column(scale=5, min_width=300):
            with gr.Row():
                go = gr.Button(steer, variant="primary", min_width=0, elem_id="bank-steer")
                tokens = gr.Button("Read its tokens", min_width=0, elem_id="bank-tokens")
                inspect = gr.Button("Inspect", min_width=0, elem_id="bank-inspect")
            shown = panel(html, *PAGE, elem_id="bank-page")
            read = panel(lens, *PAGE, elem_id="bank-lens")
        with gr.Column(scale=3, min_width=300):
            dots = panel(plane, "text", "map", elem_id="bank-map", pick=True)
            with gr.Accordion("Edit this vector", open=False):
                name = gr.Textbox(label, label="Label", max_length=MAX_LABEL, elem_id="bank-label")
                text = gr.Textbox(note, label="Note", max_length=MAX_NOTE, lines=2, max_lines=6, elem_id="bank-note")
                save = gr.Button("Save", size="sm", elem_id="bank-save")
            whole = _whole(tab, numbers)
    over = Overview(query, duds, rows, dots)
    page = Page(shown, read, go, name, text, tokens, inspect, save)
    _connect_overview(tab, act, said, (chosen, own), over, page, whole)
    _connect_page(tab, act, said, (chosen, own), over, page)
    _connect_whole(tab, act, said, over, whole)


def _overview(box: dict[str, Any], table: str) -> tuple[gr.Textbox, gr.Checkbox, gr.HTML]:
    with gr.Row(elem_id="bank-find"):
        query = gr.Textbox(
            label="Search",
            placeholder="Label, tag or number",
            show_label=False,
            container=False,
            max_length=MAX_QUERY,
            scale=4,
            min_width=260,
            elem_id="bank-search",
        )
        duds = gr.Checkbox(
            label=box["label"],
            value=box["value"],
            interactive=box["interactive"],
            container=False,
            scale=1,
            min_width=190,
            elem_id="bank-duds",
        )
    rows = panel(table, *TABLE, elem_id="bank-table", pick=True)
    return query, duds, rows


def _whole(tab: TabContext, numbers: str) -> Whole:
    with gr.Accordion("Select into a new bank", open=False):
        selection = gr.Textbox(numbers, label="Vectors", info="Such as 0, 3, 5-9.", elem_id="bank-numbers")
        with gr.Row():
            take = gr.Button("Take those on show", size="sm", min_width=0)
            make = gr.Button("Make the bank", size="sm", min_width=0, elem_id="bank-make")
    with gr.Accordion("Download and push", open=False):
        download = gr.Button("Download (zip)", size="sm", elem_id="bank-download")
        file = hidden_file("bank-file")
        login = visitors_log_in()
        if not login and not tab.context.limits.local_files:
            return Whole(selection, take, make, download, file, None)
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
    return Whole(selection, take, make, download, file, Push(repo, private, push, pushed))


def _connect_overview(
    tab: TabContext,
    act: BankActions,
    said: gr.HTML,
    states: tuple[gr.State, gr.State],
    over: Overview,
    page: Page,
    whole: Whole,
) -> None:
    """Search, clicks in table and map, and another bank."""
    chosen, own = states
    view = [over.query, over.duds]
    gr.on(
        [over.query.input, over.duds.input],
        with_notice(act.filter, 2),
        [tab.bank_key, *view, chosen],
        [said, over.table, over.map],
        trigger_mode="always_last",
        **LOCAL,
    )

    def pick(event: gr.EventData, key: str, query: str, duds: bool) -> tuple[Any, ...]:
        return act.pick(event, key, query, duds)

    for place in (over.table, over.map):
        place.select(
            with_notice(pick, 8), [tab.bank_key, *view], [said, chosen, over.table, over.map, *page[:5]], **LOCAL
        )
    tab.bank_key.change(
        with_notice(act.open, 11),
        [tab.bank_key, own],
        [said, over.query, over.duds, chosen, over.table, over.map, *page[:5], whole.numbers],
        **LOCAL,
    )


def _connect_page(
    tab: TabContext, act: BankActions, said: gr.HTML, states: tuple[gr.State, gr.State], over: Overview, page: Page
) -> None:
    """Steer, tokens, all that is known, save."""
    key, (chosen, own) = tab.bank_key, states
    page.steer.click(with_notice(partial(act.send, "steer"), 2), [key, chosen], [said, tab.pick, tab.tabs], **SHARED)
    page.inspect.click(
        with_notice(partial(act.send, "inspect"), 2), [key, chosen], [said, tab.look, tab.tabs], **SHARED
    )
    page.tokens.click(with_notice(act.tokens, 1), [key, chosen], [said, page.lens], **model_event(page.lens))
    page.save.click(
        with_notice(act.save, 9),
        [key, chosen, page.label, page.note, over.query, over.duds],
        [said, key, own, over.table, over.map, *page[:5]],
        **SHARED,
    )


def _connect_whole(tab: TabContext, act: BankActions, said: gr.HTML, over: Overview, whole: Whole) -> None:
    """Selection, download, push."""
    key = tab.bank_key
    whole.take.click(with_notice(act.shown, 1), [key, over.query, over.duds], [said, whole.numbers], **LOCAL)
    whole.make.click(with_notice(act.select, 1), [key, whole.numbers], [said, key], **SHARED)
    downloads_by(whole.download, act.download, key, said, whole.file)
    push = whole.push
    if push is not None:
        function = act.push_as if visitors_log_in() else act.push_here
        push.button.click(
            with_notice(function, 1),
            [key, push.repo, push.private],
            [said, push.pushed],
            concurrency_limit=4,
            **PRIVATE,
        )
