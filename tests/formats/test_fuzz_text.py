"""Text of banks, models, corpora and visitors shows as text, in every page and card; and any bytes are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melbo.app.conversation import from_view, to_view
from melbo.app.notice import alert, hint
from melbo.app.tabs.bank.handlers import vector_rows
from melbo.app.tabs.bank.html import lens_html, page_html, table_html
from melbo.app.tabs.steer.html import head_html, note_html, tokens_html
from melbo.app.tabs.steer.settings import Settings
from melbo.app.tabs.strip.handlers import Card, Strip
from melbo.app.tabs.strip.html import strip_html
from melbo.bank.select import choose, merge
from melbo.bank.vector_bank import VectorBank
from melbo.errors import MelboError
from melbo.formats.read_vectors import read_vectors
from melbo.inspect.lens.logit_lens import Lens, LensReport, Token
from melbo.inspect.lens.token_change import TokenChange
from melbo.inspect.max_activating.report import ActivatingReport, page
from melbo.publishing.card.render import render_card
from melbo.publishing.publish import save_with_card
from melbo.reports.page import render
from melbo.reports.replication.report import report_view
from support.banks import noted as with_notes
from support.cards import body, html, nasty_bank
from support.fuzz_targets import TARGETS, plain
from support.fuzz_values import BASE, D, N, a_bank, a_report, a_sweep

PARTS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '" onmouseover="alert(1)', "' x='", "</td></table>",
    "<!--", "-->", "]]>", "&lt;b&gt;", "&#60;b&#62;", "javascript:alert(1)", "[a](javascript:alert(1))",
    "![x](http://e.x/p)",
    "| a | b |\n|---|---|", "```", "---\n", "# h", "{{ 1 }}", "{% raw %}", "</style><style>*{}", "</title>",
    "\u202e", "\0",
    "x", "é中😀", "\n", " ",
)  # fmt: skip
TEXT = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(lambda parts: "x" + "".join(parts))
FEW = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    SCALARS | WORDS, lambda v: st.lists(v, max_size=4) | st.dictionaries(WORDS, v, max_size=4), max_leaves=12
)
KNOWN = st.sampled_from(
    ("label", "note", "tags", "scale", "scale_ranges", "examples", "metrics", "preset", "more_presets", "unsteered",
     "dud", "auto", "control", "text", "prompt")
)  # fmt: skip
HEADS = (b"", b"GGUF", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"12345678{", b'{"directions":', b"\x80\x02")
ENTRY = st.dictionaries(KNOWN | WORDS, JSON | st.dictionaries(KNOWN, JSON, max_size=4), max_size=8)


class Shape(HTMLParser):
    """Tags with their attributes' names, and the values of those that could load or run something."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Any] = []
        self.shown: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, sorted(name for name, _ in attrs), [v for n, v in attrs if n in ("href", "src")]))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(tag)

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append("doctype")

    def unknown_decl(self, data: str) -> None:
        self.found.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.found.append("instruction")

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def noted(text: str) -> VectorBank:
    return nasty_bank(a_bank(), text)


def activating(text: str) -> ActivatingReport:
    report = a_report()
    made = tuple(
        replace(d, label=text, examples=tuple(replace(e, pieces=(text, text, text), mark=text) for e in d.examples))
        for d in report.directions
    )
    return replace(report, model=replace(report.model, id=text), corpus=text, skipped={text: 1}, directions=made)


def strip(text: str) -> str:
    cards = (Card(-1.0, text, 5.0), Card(0.0, text), Card(1.0, text, None, True))
    return strip_html(Strip(cards, True, ((-1.0, 1.0),)))


def lens(text: str) -> str:
    tokens = (Token(1, text, 2.0),)
    return lens_html(LensReport("", BASE, "vector", (Lens(0, text, 1, tokens, tokens),), 1.0, 2.0))


def study(text: str) -> str:
    bank = noted(text)
    sweep = replace(a_sweep(), prompts=bank.prompts, unsteered=(text,), embedder=text)
    return render(
        "replication/report.html.jinja", report_view(bank, sweep, []), {"sweep": "", "shares": "", "scales": ""}
    )


PAGES: dict[str, Callable[[str], str]] = {
    "activating": lambda text: page(activating(text)),
    "bank table": lambda text: table_html(vector_rows(noted(text)), 0, N),
    "vector page": lambda text: page_html(noted(text), 0, activating(text).directions),
    "logit lens": lens,
    "head": lambda text: head_html(noted(text), Settings(((0, 1.0), (1, 2.0)))),
    "note": note_html,
    "tokens": lambda text: tokens_html([TokenChange(text, 0.5, 0.1, 1.5)]),
    "strip": strip,
    "alert": alert,
    "hint": hint,
    "study": study,
}


@pytest.mark.parametrize("name", PAGES)
def test_foreign_text_is_only_text_in_html(name: str) -> None:
    make = PAGES[name]
    expected = Shape(make("x")).found
    assert expected

    @FEW
    @given(TEXT)
    def check(text: str) -> None:
        assert Shape(make(text)).found == expected, text

    check()


@pytest.mark.slow
@FEW
@given(TEXT)
def test_foreign_text_is_only_text_in_a_card(text: str) -> None:
    kinds = re.compile(r"</?(?!p>|/p>|br|blockquote|/blockquote)[a-z0-9]+[^>]*>")
    assert kinds.findall(html(body(render_card(noted(text))))) == kinds.findall(html(body(render_card(noted("x")))))


@FEW
@given(st.lists(st.tuples(st.sampled_from(("user", "assistant")), TEXT), max_size=4))
def test_chats_hold_no_html_and_come_back(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": text} for role, text in turns]
    shown = to_view(messages)
    assert not any("<" in part["text"] for turn in shown for part in turn["content"])
    assert from_view(shown) == messages


@pytest.mark.slow
@FEW
@given(JSON)
def test_any_json_is_a_chat_history(value: Any) -> None:
    found = from_view(value if isinstance(value, list) else [value])
    assert from_view(to_view(found)) == found


@pytest.mark.slow
@settings(FEW, max_examples=30)
@given(st.lists(ENTRY, min_size=N, max_size=N), st.dictionaries(WORDS, JSON, max_size=4))
def test_any_annotation_is_kept_shown_and_curated(tmp_path_factory: Any, notes: list[Any], details: Any) -> None:
    folder = tmp_path_factory.mktemp("bank") / "b"
    bank = replace(with_notes(a_bank(), *notes), details=details)
    loaded = VectorBank.load(bank.save(folder))
    assert plain(loaded.annotations) == plain(bank.annotations) and plain(loaded.details) == plain(bank.details)
    assert json.loads((folder / "annotations.json").read_text()) == notes
    use = next(t.use for t in TARGETS if t.name == "bank")
    assert use is not None
    use(loaded)
    assert len(merge([loaded.select([0]), loaded.select([2, 1])])) == N
    for index in range(N):
        assert index in choose(loaded, labels=[loaded.label(index)])


@settings(FEW, max_examples=20)
@given(st.sampled_from(HEADS), st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path_factory: Any, head: bytes, rest: bytes) -> None:
    path = tmp_path_factory.mktemp("v") / "v"
    path.write_bytes(head + rest)
    with pytest.raises(MelboError):
        read_vectors(path)


@settings(FEW, max_examples=20)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=N * D, max_size=N * D).filter(any))
def test_any_vectors_survive_the_file(tmp_path_factory: Any, values: list[float]) -> None:
    vectors = torch.tensor(values).reshape(N, D)
    norms = vectors.norm(dim=-1, keepdim=True)
    vectors = torch.where(norms > 1e-3, vectors / norms.clamp_min(1e-3), torch.eye(N, D)) * 2.5
    loaded = VectorBank.load(replace(a_bank(), vectors=vectors).save(tmp_path_factory.mktemp("bank") / "b"))
    assert torch.equal(loaded.vectors, vectors)


def test_a_name_without_end_is_refused() -> None:
    """The file system gives up on it in its own way."""
    for load in (VectorBank.load, VectorBank.from_pretrained, read_vectors):
        with pytest.raises(MelboError):
            load("x" * 5000)


def test_a_card_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    bank = a_bank()
    folder = bank.save(tmp_path / "bank")
    (folder / "README.md").symlink_to("/dev/zero")
    assert not (VectorBank.load(folder).save(tmp_path / "plain") / "README.md").exists()
    saved = save_with_card(VectorBank.load(folder), tmp_path / "other")
    assert "steering vectors for" in (saved / "README.md").read_text(encoding="utf-8")
