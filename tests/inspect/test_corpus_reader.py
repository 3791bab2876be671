"""Corpora: what is read from files and data sets, and what is counted as unreadable."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from melbo.errors import CorpusError
from melbo.inspect.max_activating.corpus_reader import Document, Item, Skip, open_corpus


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and reasons."""
    items: list[Item] = list(open_corpus(str(path)).read())
    return [i.text for i in items if isinstance(i, Document)], [i.reason for i in items if isinstance(i, Skip)]


def test_text_files_are_read_by_paragraph_and_bad_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\ntwo\n\n\n".encode() + b"bad \xff line\nthree\r\n\r\nfour")
    assert read(path) == (["one\ntwo", "three", "four"], ["lines that are not UTF-8"])


def test_a_file_without_line_breaks_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melbo.inspect.max_activating.corpus_reader.LINE_BYTES", 64)
    monkeypatch.setattr("melbo.inspect.max_activating.corpus_reader.PARAGRAPH_CHARACTERS", 100)
    path = tmp_path / "long.txt"
    words = ["größe"] * 200
    path.write_text(" ".join(words), encoding="utf-8")
    found, skipped = read(path)
    assert " ".join(found).split() == words and not skipped and max(map(len, found)) < 170


def test_json_lines_are_read_and_bad_ones_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melbo.inspect.max_activating.corpus_reader.LINE_BYTES", 200)
    chat = {"messages": [{"role": "user", "content": "hi"}], "mark": "m"}
    values = [{"text": "one"}, chat, {"messages": [{"role": "user"}]}, 7, {"text": "x" * 900}, "two", {"text": 3}]
    lines = [json.dumps(value) for value in values] + ["{broken"]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    items = list(open_corpus(str(path)).read())
    assert items[1] == Document(messages=({"role": "user", "content": "hi"},), mark="m")
    texts_, skipped = read(path)
    assert [t for t in texts_ if t] == ["one", "two"]
    assert len(skipped) == 6 and len(set(skipped)) == 5


def test_a_hub_data_set_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="pip install datasets"):
        open_corpus("hf:owner/name")

    def load_dataset(name: str, *, split: str, streaming: bool) -> Iterator[dict[str, Any]]:
        if name != "owner/name":
            raise FileNotFoundError("unknown data set")
        assert streaming and split == "test"
        return iter([{"text": "one"}, {"text": ""}, {"text": "two"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    corpus = open_corpus("hf:owner/name", split="test", limit=2)
    for _ in range(2):
        assert list(corpus.read()) == [Document("one"), Skip("records without text or messages")]
    with pytest.raises(CorpusError, match="unknown data set"):
        open_corpus("hf:owner/other")


def test_half_a_character_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    chat = {"messages": [{"role": "user", "content": "\udc00"}]}
    rows = [{"text": "good"}, {"text": "\ud83d"}, {"text": "x", "mark": "\ud83d"}, chat, {"text": "\U0001f600"}]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    items = list(open_corpus(str(path)).read())
    assert [i.text for i in items if isinstance(i, Document)] == ["good", "\U0001f600"]
    assert items.count(Skip("records with half a character")) == 3
