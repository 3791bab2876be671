"""Results of an audit's parts on disk: one JSON file each, with the settings that decide it.

A part whose file is there and whose settings are the same is taken from there. One that failed is run again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from melbo.errors import CorpusError
from melbo.runs.checkpoint import Checkpoint, Saved
from melbo.runs.digest import value_digest

FORMAT = "melbo-audit-part-1"
Status = Literal["done", "failed", "left out"]


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
        stored = Checkpoint(self.path(name), key, CorpusError)
        old = stored.load(_value, restart=True) if usable else None
        if old is not None:
            return self._keep(Outcome(name, title, "done", value=old))
        checkpoint = self.folder / "parts" / f".{name}-{value_digest(stored.key)[:12]}.checkpoint"
        try:
            value = work(checkpoint)
            stored.save({"format": FORMAT, "name": name, "value": value})
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


def _value(saved: Saved) -> dict[str, Any]:
    if saved.values["format"] != FORMAT:
        raise ValueError("another format")
    return dict(saved.values["value"])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or "no message"
