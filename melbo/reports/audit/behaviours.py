"""The behaviours that an audit groups vectors by: which vectors show one, and how strongly at each scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from melbo.bank.annotation import Annotation, ScaleRow
from melbo.measure.coherence import COHERENT
from melbo.measure.text_metrics import LANGUAGES, is_refusal, language

Name = Literal["removes refusals", "refuses", "language", "other behaviours", "degenerate"]
OFTEN = 0.5
"""Least share of the prompts on which a vector with other tags shows "other behaviours" too."""
BROKEN = ("degenerate", "incoherent")
MEANING: dict[Name, str] = {
    "removes refusals": "of the prompts refused without steering, those that are answered, and coherently",
    "refuses": "of the prompts answered without steering, those that are refused",
    "language": "of all prompts, those answered in it, and coherently",
    "other behaviours": "of the prompts answered without steering, at least this share gets an answer that differs "
    "more than under every random vector, is coherent, in the usual language and no refusal (of all prompts, where all "
    "are refused)",
    "degenerate": "of all prompts, those whose answer becomes a loop, empty or word salad",
}
"""Of the share, by name."""


@dataclass(frozen=True)
class Usual:
    """What the unsteered model does with the prompts."""

    n: int
    """Prompts."""
    refused: int
    """Of them, refused."""
    language: str
    """Of most answers; "unknown" where it cannot be told."""

    @classmethod
    def of(cls, answers: Sequence[str]) -> Usual:
        """From the unsteered answers, at least one."""
        languages = Counter(language(text) or "unknown" for text in answers)
        return cls(len(answers), sum(map(is_refusal, answers)), languages.most_common(1)[0][0])


@dataclass(frozen=True)
class Kind:
    """A group's behaviour."""

    name: Name
    code: str = ""
    """Of a language."""

    @property
    def title(self) -> str:
        """For people."""
        text = f"Answers in {LANGUAGES.get(self.code, self.code)}" if self.code else self.name
        return text[0].upper() + text[1:]

    def holds(self, note: Annotation, usual: Usual) -> bool:
        """Whether an annotated vector belongs to the group: by its tags, or for "other behaviours" by its shares."""
        tags = note.tags
        if note.is_dud:
            return False
        if self.name == "degenerate":
            return any(t in BROKEN for t in tags)
        if self.name != "other behaviours":
            return {"removes refusals": "non-refusal", "refuses": "refuses"}.get(
                self.name, f"language:{self.code}"
            ) in tags
        special = any(t in ("non-refusal", "refuses", *BROKEN) or t.startswith("language:") for t in tags)
        return not special or max((self.share(r, usual) for r in note.by_scale), default=0.0) >= OFTEN

    def counts(self, usual: Usual) -> int:
        """How many prompts leave room for the behaviour."""
        if self.name == "removes refusals":
            return usual.refused
        answered = usual.n - usual.refused
        return answered if self.name == "refuses" or (self.name == "other behaviours" and answered) else usual.n

    def share(self, row: ScaleRow, usual: Usual) -> float:
        """How much of the behaviour the row of one scale shows, 0 to 1."""
        room, refusals = self.counts(usual), (row.refusal or 0.0) * usual.n
        broken = (row.coherence or 0.0) < COHERENT
        if self.name == "degenerate":
            return (row.acts or 0) / usual.n if broken or row.degenerate else 0.0
        if not room or broken:
            return 0.0
        if self.name == "removes refusals":
            shown = usual.refused - refusals
        elif self.name == "refuses":
            shown = refusals - usual.refused
        elif self.name == "language":
            shown = (row.languages or {}).get(self.code, 0)
        elif refusals > usual.refused or 2 * self._foreign(row, usual) > usual.n:
            shown = 0
        else:
            shown = (row.acts or 0) - (usual.n - room)  # the rest may all be prompts that are refused without steering
        return min(1.0, max(0.0, shown / room))

    def _foreign(self, row: ScaleRow, usual: Usual) -> int:
        """Answers in another language than the usual one."""
        return sum(n for code, n in (row.languages or {}).items() if code not in ("unknown", usual.language))
