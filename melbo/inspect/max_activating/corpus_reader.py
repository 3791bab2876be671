"""Corpora for activating examples: a text or JSONL file, or a data set of the Hub.

A corpus is read one document at a time, and anew on each pass, so that memory does not grow with it. What cannot be
read is passed on as a `Skip`, to be counted: nothing disappears in silence.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from melbo.errors import CorpusError
from melbo.prompts import Message
from melbo.runs.digest import value_digest

HUB_PREFIX = "hf:"
LINE_BYTES = 2**20
"""Longest line read as one."""
PARAGRAPH_CHARACTERS = 20_000
"""A longer paragraph is cut into several documents."""


@dataclass(frozen=True)
class Document:
    """One text or chat."""

    text: str = ""
    messages: tuple[Message, ...] = ()
    """A chat; `text` is empty then."""
    mark: str = ""
    """What is known of it, such as its mode; counted among the examples."""


@dataclass(frozen=True)
class Skip:
    """A piece of the corpus that could not be used."""

    reason: str


Item = Document | Skip


@dataclass(frozen=True)
class Corpus:
    """Documents that can be read again and again, in the same order."""

    name: str
    read: Callable[[], Iterator[Item]]
    version: str = ""
    """What tells it from another corpus of this name, as far as that can be told without reading it."""

    def digest(self) -> str:
        """Of all its documents, in order; reads the whole corpus."""
        found = ""
        for item in self.read():
            found = value_digest([found, asdict(item)])
        return found


def open_corpus(source: str, *, limit: int | None = None, split: str = "train") -> Corpus:
    """A corpus by name.

    Args:
        source: a file (.jsonl: one object a line with "text" or "messages", and maybe "mark"; other endings: plain
            text, paragraphs parted by empty lines), or "hf:OWNER/NAME" for a data set of the Hub.
        limit: most documents; None: all.
        split: of a Hub data set: "train", "validation", ...

    Raises:
        CorpusError: there is no such file or data set, the file is binary, or `datasets` is not installed.
    """
    if limit is not None and limit < 1:
        raise CorpusError(f"the limit is {limit}; ask for at least 1 document.")
    if source.startswith(HUB_PREFIX):
        whole = hub_corpus(source.removeprefix(HUB_PREFIX), split)
    else:
        whole = file_corpus(Path(source))
    return Corpus(whole.name, lambda: islice(whole.read(), limit), whole.version) if limit else whole


def file_corpus(path: Path) -> Corpus:
    """A text or JSONL file, UTF-8.

    Raises:
        CorpusError: no such file, or it is binary.
    """
    if not path.is_file():
        raise CorpusError(f"there is no corpus {str(path)!r}; give a text or .jsonl file, or {HUB_PREFIX}OWNER/NAME.")
    with path.open("rb") as file:
        if b"\0" in file.read(8192):
            raise CorpusError(f"{path} is a binary file (it holds NUL bytes); give UTF-8 text or JSON lines.")
    reader = _read_jsonl if path.suffix.lower() in (".jsonl", ".ndjson") else _read_text
    return Corpus(path.name, lambda: reader(path), f"{path.stat().st_size} bytes")


def _lines(file: IO[bytes]) -> Iterator[str | Skip]:
    """Decoded lines; one longer than LINE_BYTES is cut at its last space."""
    while raw := file.readline(LINE_BYTES):
        if len(raw) == LINE_BYTES and not raw.endswith(b"\n") and (cut := raw.rfind(b" ")) > 0:
            file.seek(cut + 1 - len(raw), 1)
            raw = raw[: cut + 1]
        try:
            yield raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            yield Skip("lines that are not UTF-8")


def _read_text(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        lines: list[str] = []
        size = 0
        for line in _lines(file):
            if isinstance(line, Skip):
                yield line
                continue
            if line.strip():
                lines.append(line)
                size += len(line)
            if lines and (not line.strip() or size >= PARAGRAPH_CHARACTERS):
                yield Document("".join(lines).strip())
                lines, size = [], 0
        if lines:
            yield Document("".join(lines).strip())


def _read_jsonl(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        while raw := file.readline(LINE_BYTES):
            if len(raw) == LINE_BYTES and not raw.endswith(b"\n"):
                while (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield Skip(f"lines longer than {LINE_BYTES} bytes")
            elif raw.strip():
                yield _parse(raw)


def _parse(raw: bytes) -> Item:
    try:
        return make_document(json.loads(raw.decode("utf-8-sig")))
    except UnicodeDecodeError:
        return Skip("lines that are not UTF-8")
    except (ValueError, RecursionError):
        return Skip("lines that are not JSON")


def make_document(value: Any) -> Item:
    """A document of {"text": ...} or {"messages": [{"role", "content"}]}, with "mark" if there is one."""
    made = _document(value)
    if isinstance(made, Document):
        try:
            "".join((made.text, made.mark, *(text for m in made.messages for text in m.values()))).encode()
        except UnicodeEncodeError:  # JSON may escape half of a surrogate pair; no tokenizer takes it
            return Skip("records with half a character")
    return made


def _document(value: Any) -> Item:
    value = {"text": value} if isinstance(value, str) else value
    if not isinstance(value, dict):
        return Skip("records without text or messages")
    mark = str(value.get("mark") or "")
    messages = value.get("messages")
    if isinstance(messages, list) and messages:
        try:
            return Document(messages=tuple({"role": m["role"] + "", "content": m["content"] + ""} for m in messages),
                            mark=mark)  # fmt: skip
        except (KeyError, TypeError):
            return Skip("chats whose messages lack a role or a content")
    text = value.get("text")
    if isinstance(text, str) and text.strip():
        return Document(text, mark=mark)
    return Skip("records without text or messages")


def hub_corpus(name: str, split: str = "train") -> Corpus:
    """A data set of the Hub, streamed; its records need a "text" or "messages" column.

    Raises:
        CorpusError: `datasets` is not installed, or it does not know the data set or the split.
    """
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise CorpusError(
            f"{HUB_PREFIX}{name} needs the package `datasets`, which is not installed; run `pip install datasets`, "
            "or give a text or .jsonl file."
        ) from error

    def load() -> Any:
        try:
            return datasets.load_dataset(name, split=split, streaming=True)
        except Exception as error:  # the library raises many kinds
            reason = " ".join(str(error).split())[:200]
            raise CorpusError(f"the data set {name!r}, split {split!r}, cannot be loaded: {reason}") from error

    load()
    return Corpus(f"{HUB_PREFIX}{name} ({split})", lambda: (make_document(dict(record)) for record in load()))
