"""Result files: JSON that names its format, written whole or not at all, and checked when it is read.

Those of `melbo inspect` lie beside a bank's vectors, travel with them, and say which vectors they are about. What is of
other vectors, too large or damaged counts as none. melbo/inspect/stored.py reads them in full.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue

from melbo.bank.facts import BaseModel
from melbo.errors import BankError, CorpusError, MelboError
from melbo.runs.files import parse_json, read_json, write_file
from melbo.runs.parse import dump, parse

ACTIVATING = "activating.json"
SAE = "sae.json"
LENS = "lens.json"
GEOMETRY = "geometry.json"
FORMATS = {
    ACTIVATING: "melbo-activating-1",
    SAE: "melbo-sae-comparison-1",
    LENS: "melbo-logit-lens-1",
    GEOMETRY: "melbo-geometry-1",
}
"""Of the files that lie beside a bank: the format that each must state."""
MAX_BYTES = 256 * 2**20
MAX_SHOWN_BYTES = 16 * 2**20
"""Of a file beside a bank that is shown or handed on."""
Count = Annotated[int, Field(ge=0)]
Sign = Literal[1, -1]
SIGNS: tuple[Sign, Sign] = (1, -1)


@dataclass(frozen=True)
class Extensible:
    """What may hold keys of a newer melbo; they survive a load and a save."""

    extra: Mapping[str, JsonValue] = field(default_factory=dict, kw_only=True, repr=False)


@dataclass(frozen=True)
class FileKind:
    """What is the same for all files of one kind."""

    format: str | None
    """That the file states; None: it states none."""
    noun: str
    """For messages, as the next: "layer atlas"."""
    command: str
    """That makes one: "melbo atlas"."""
    error: type[MelboError] = CorpusError
    version: int | None = None
    """Of the format, where the file states one."""
    before: tuple[str, ...] = ()
    """Properties of the value that are written before its fields, for other readers; they are not read."""
    after: tuple[str, ...] = ()
    """The same, after its fields."""
    indent: int | None = None


@dataclass(frozen=True)
class ResultFile(Extensible):
    """A value that is saved as a JSON file."""

    file: ClassVar[FileKind]

    def save(self, path: Path) -> Path:
        """Write the value; ValueError where it holds NaN."""
        text = json.dumps(self.values(), ensure_ascii=False, allow_nan=False, indent=self.file.indent)
        return write_file(path, f"{text}\n")

    def values(self) -> dict[str, Any]:
        """The file's JSON values."""
        head: dict[str, Any] = {"format": self.file.format, "format_version": self.file.version}
        held = {name: item for name, item in head.items() if item is not None}
        for names, fields in ((self.file.before, dump(self)), (self.file.after, {})):
            held |= {name: dump(getattr(self, name)) for name in names} | fields
        return held

    @classmethod
    def load(cls, path: Path) -> Self:
        """Inverse of `save`.

        Raises:
            MelboError: of the kind's type: the file is missing, too large, damaged, of another format or a newer
                version, or holds impossible values.
        """
        kind = cls.file
        if not os.path.isfile(path):
            raise kind.error(f"there is no {kind.noun} at {path}; make one with `{kind.command}`.")
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES // 2**20} MiB")
            raw = parse_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise kind.error(
                f"{path} is not a {kind.noun}, or damaged: {str(error)[:200]}; make it again with `{kind.command}`."
            ) from error
        return cls.of(raw, path)

    @classmethod
    def of(cls, raw: Any, path: Path) -> Self:
        """Inverse of `values`; raises as `load` does, and names the file that they are from."""
        kind = cls.file
        try:
            own = _unwrapped(raw, kind, path)
        except ValueError as error:
            raise kind.error(
                f"{path} is not a {kind.noun}, or damaged: {error}; make it again with `{kind.command}`."
            ) from error
        return parse(cls, own, f"{path} is damaged", kind.error, advice=f"make it again with `{kind.command}`")


@dataclass(frozen=True)
class Result(ResultFile):
    """What begins every result about a bank's vectors."""

    bank: str
    """Digest of the vectors (VectorBank.digest)."""
    model: BaseModel


def _unwrapped(raw: Any, kind: FileKind, path: Path) -> dict[str, Any]:
    """The value's own fields."""
    if not isinstance(raw, dict):
        raise ValueError("it holds no object")
    if kind.format is not None and raw.get("format") != kind.format:
        raise ValueError(f"its format is {repr(raw.get('format'))[:60]}")
    if kind.version is not None:
        stated = raw.get("format_version")
        if type(stated) is not int or stated < 1:
            raise ValueError(f"format_version is {repr(stated)[:60]}")
        if stated > kind.version:
            raise kind.error(f"{path} has format version {stated}; this melbo reads {kind.version}; update melbo.")
    wrapping = ("format", "format_version", *kind.before, *kind.after)
    return {name: item for name, item in raw.items() if name not in wrapping}


def write_result(path: Path, kind: str, value: dict[str, Any]) -> Path:
    """Write {"format": kind, **value} for readers elsewhere; ValueError where it holds NaN."""
    return write_file(path, json.dumps({"format": kind, **value}, ensure_ascii=False, allow_nan=False) + "\n")


def find_result(folder: Path | None, name: str, digest: str) -> Path | None:
    """One of the FORMATS' files, if it is about the vectors with this digest; the rest of it is not checked.

    A link is read, since the Hub's cache is made of them, but what it points to must be such a file itself.
    """
    path = None if folder is None else folder / name
    if path is None or not os.path.isfile(path):
        return None
    try:
        found = read_json(path) if path.stat().st_size <= MAX_SHOWN_BYTES else None
    except (BankError, OSError):
        return None
    known = isinstance(found, dict) and found.get("format") == FORMATS[name] and found.get("bank") == digest
    return path if known else None
