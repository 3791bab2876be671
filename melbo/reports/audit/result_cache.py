"""Results of an audit's parts on disk: one JSON file each, with the settings that decide it.

A part whose file is there and whose settings are the same is taken from there. One that failed is run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from melbo.bank.result_file import FileKind, ResultFile
from melbo.errors import CorpusError

Status = Literal["done", "failed", "left out"]


@dataclass(frozen=True)
class _Part(ResultFile):
    """The file of one part."""

    file = FileKind("melbo-audit-part-1", "part of an audit", "melbo audit")

    name: str
    key: Mapping[str, JsonValue]
    """What decided the result."""
    value: Mapping[str, JsonValue]


@dataclass(frozen=True)
class Outcome:
    """What became of one part."""

    name: str
    """Of its file: "annotate-A"."""
    title: str
    status: Status
    reason: str = ""
    """Why it failed or was left out."""
    value: dict[str, Any] | None = None
    """Its result, where it is done."""


class Store:
    """The parts of one audit in one folder.

    Args:
        cancelled: tells whether an exception came from the progress callable, so that it must not be taken for a
            failed part.
    """

    def __init__(self, folder: Path, cancelled: Callable[[], bool]) -> None:
        self.folder, self._cancelled = folder, cancelled
        self.outcomes: list[Outcome] = []

    def path(self, name: str) -> Path:
        """A part's file."""
        return self.folder / "parts" / f"{name}.json"

    def run(
        self, name: str, title: str, key: dict[str, Any], work: Callable[[Path], dict[str, Any]], *, usable: bool = True
    ) -> Outcome:
        """Do a part, or take it from its file; an error of its own makes it a failed one.

        Args:
            key: what decides the result, as JSON values.
            work: called with a checkpoint file that a stopped run of the same key goes on from.
            usable: False: what the part left beside its file is gone, so that it must be done again.
        """
        key = json.loads(json.dumps(key))
        old = self._stored(name, key) if usable else None
        if old is not None:
            return self._keep(Outcome(name, title, "done", value=old))
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        checkpoint = self.folder / "parts" / f".{name}-{digest}.checkpoint"
        try:
            value = work(checkpoint)
            _Part(name, key, value).save(self.path(name))
        except Exception as error:
            if self._cancelled():
                raise
            return self._keep(Outcome(name, title, "failed", f"{type(error).__name__}: {_line(error)}"))
        for left in self.folder.glob(f"parts/.{name}-*.checkpoint*"):
            left.unlink(missing_ok=True)
        return self._keep(Outcome(name, title, "done", value=json.loads(json.dumps(value))))

    def leave_out(self, name: str, title: str, reason: str) -> Outcome:
        """Note a part that was not run."""
        return self._keep(Outcome(name, title, "left out", reason))

    def _keep(self, outcome: Outcome) -> Outcome:
        self.outcomes.append(outcome)
        return outcome

    def _stored(self, name: str, key: dict[str, Any]) -> dict[str, Any] | None:
        try:
            part = _Part.load(self.path(name))
        except CorpusError:  # missing, damaged or of another kind: it is written anew
            return None
        return dict(part.value) if part.key == key else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or "no message"
