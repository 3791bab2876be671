"""Where the Inspect tab's passages come from: a visitor's text or file, or the embedded model's own chats."""

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from melbo.app.context import Context
from melbo.bank.vector_bank import VectorBank
from melbo.errors import CorpusError
from melbo.inspect.max_activating.corpus_reader import Corpus, Document
from melbo.organism.inputs import ORGANISM, find_corpus

MAX_CORPUS = 400_000
"""Characters of a corpus that is pasted."""
MAX_FILE = 4 * 2**20
"""Bytes of a corpus that is uploaded."""
ENDINGS = (".txt", ".md", ".jsonl", ".ndjson")
CHATS = 1_100
"""Of the organism's corpus, a hundred for each mode and the default."""


@dataclass(frozen=True)
class Source:
    """Where passages come from; small enough to be handed to another process."""

    kind: Literal["organism", "text", "file"] = "organism"
    text: str = ""
    path: str = ""


def read_source(context: Context, bank: VectorBank, text: Any, path: Any = None) -> Source:
    """The corpus that a visitor means: an uploaded file, or pasted text, or else the organism's chats.

    Raises:
        CorpusError: there is none for this model, or it is too large or of another kind.
    """
    if path:
        name = Path(str(path))
        if name.suffix.lower() not in ENDINGS:
            raise CorpusError(f"the file ends in {name.suffix[:20]!r}; upload one of {', '.join(ENDINGS)}.")
        if not name.is_file() or name.stat().st_size > MAX_FILE:
            raise CorpusError(f"the file is larger than {MAX_FILE // 2**20} MiB; upload a part of it.")
        return Source("file", path=str(path))
    pasted = str(text or "")
    if len(pasted) > MAX_CORPUS:
        raise CorpusError(f"the text has {len(pasted):,} characters; at most {MAX_CORPUS:,} are read.")
    if pasted.strip():
        return Source("text", text=pasted)
    if context.model(bank).name != ORGANISM:
        raise CorpusError("paste a text or upload a file first; only the embedded model brings its own chats.")
    return Source()


def make_corpus(source: Source) -> tuple[Corpus, int]:
    """The corpus, and how many documents it has; 0 where that is not known."""
    if source.kind == "organism":
        return find_corpus(ORGANISM, limit=CHATS), CHATS
    if source.kind == "file":
        return replace(find_corpus(source.path), name="your file"), 0
    parts = [part.strip() for part in source.text.replace("\r\n", "\n").split("\n\n")]
    documents = [Document(part) for part in parts if part]
    return Corpus("your text", lambda: iter(documents)), len(documents)


def remove(path: Any) -> None:
    """Delete an uploaded file, if it is still there."""
    with contextlib.suppress(OSError):
        os.unlink(str(path))
