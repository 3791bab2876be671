"""The Bank tab's work: rows, search, edits, selections. No gradio, no HTML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from melbo.app.context import Context
from melbo.bank.annotation import TraitShare
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.hub.client import Pushed
from melbo.inspect.lens.logit_lens import LensReport, logit_lens
from melbo.publishing.publish import push_to_hub

MAX_QUERY = 200
MAX_LABEL = 80
MAX_NOTE = 1_000
MAX_TAGS = 12
LENS_TOKENS = 8
LENS_RANDOM = 16
"""Random directions that say how large a token's value is by chance."""


@dataclass(frozen=True)
class VectorRow:
    """What the table shows of one vector. What the annotations do not tell is None."""

    index: int
    label: str
    tags: tuple[str, ...]
    note: str
    objective: float
    scale: float | None
    """Best scale."""
    ranges: tuple[tuple[float, float], ...]
    """Usable scales."""
    coherence: float | None
    """At the best scale, 0 to 10."""
    traits: tuple[TraitShare, ...]
    """How often its traits repeat on held-out prompts, most telling first."""
    dud: bool

    @property
    def share(self) -> float:
        """Of the held-out prompts on which its first trait shows."""
        return self.traits[0].share if self.traits else 0.0


def vector_rows(bank: VectorBank) -> list[VectorRow]:
    """One row for each vector, by number."""
    rows = []
    for index in range(len(bank)):
        note = bank.annotation(index)
        rows.append(
            VectorRow(
                index=index,
                label=bank.label(index)[:MAX_LABEL],
                tags=tuple(t[:40] for t in note.tags if t != "dud")[:MAX_TAGS],
                note=note.note.strip()[:MAX_NOTE],
                objective=float(bank.objective[index]),
                scale=note.scale,
                ranges=note.scale_ranges[:4],
                coherence=note.metrics.coherence if note.metrics else None,
                traits=note.traits,
                dud=note.is_dud,
            )
        )
    return rows


def search(rows: Sequence[VectorRow], query: str | None, duds: bool) -> list[VectorRow]:
    """Rows whose number, label, tags or note hold every word of the query; duds only where asked for. First those whose
    trait repeats most often.
    """
    words = str(query or "")[:MAX_QUERY].casefold().split()
    found = []
    for row in rows:
        text = " ".join((str(row.index), row.label, *row.tags, row.note)).casefold()
        if (duds or not row.dud) and all(word in text for word in words):
            found.append(row)
    return sorted(found, key=lambda row: (-row.share, row.index))


def edited(bank: VectorBank, index: int, label: str | None, note: str | None) -> VectorBank:
    """The bank with another label and note for one vector. An empty label takes the label away.

    A vector that gets a label of its own counts as a dud no longer.

    Raises:
        BankError: there is no such vector, or a text is too long.
    """
    bank.vector(index)
    label, note = " ".join(str(label or "").split()), str(note or "").strip()
    for name, text, most in (("label", label, MAX_LABEL), ("note", note, MAX_NOTE)):
        if len(text) > most:
            raise BankError(f"the {name} has {len(text)} characters; at most {most} are allowed.")
    old = bank.annotation(index)
    new = replace(old, label=label, note=note)
    if label != old.label.strip() and old.is_dud:
        new = replace(new, dud=False, tags=tuple(t for t in old.tags if t != "dud"))
    return replace(bank, annotations=tuple(new if i == index else bank.annotation(i) for i in range(len(bank))))


def parse_indices(bank: VectorBank, text: str | None) -> list[int]:
    """Vector numbers from text such as "0, 3, 5-9", each once, in the order given.

    Raises:
        BankError: it is something else, or a number is not in the bank.
    """
    found: list[int] = []
    for part in re.split(r"[,;\s]+", str(text or "")[:4_000].strip()):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if not match:
            raise BankError(f"{part[:40]!r} is no vector; write numbers such as 0, 3, 5-9.")
        first, last = int(match[1]), int(match[2] or match[1])
        bank.vector(first)
        bank.vector(last)
        if last < first:
            raise BankError(f"{part!r} runs backwards; write the smaller number first.")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def as_text(indices: Sequence[int]) -> str:
    """Inverse of `parse_indices`: [0, 1, 2, 5] is "0-2, 5"."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def read_tokens(context: Context, bank: VectorBank, index: int) -> LensReport:
    """The logit lens of one vector's effect on the bank's prompts, both signs.

    Raises:
        MelboError: the bank is of another model, or the lens does not know the architecture.
    """
    with context.lock:
        return logit_lens(context.model(bank), bank, "effect", [index], LENS_TOKENS, LENS_RANDOM)


def push(bank: VectorBank, repo: str | None, private: bool, token: str | None) -> Pushed:
    """Upload the bank.

    Args:
        token: the visitor's; None: this machine's own login. It is handed on and kept nowhere.

    Raises:
        HubError: the name is not allowed, access is refused, or the Hub cannot be reached.
    """
    return push_to_hub(bank, str(repo or "").strip()[:200], private=bool(private), token=token)
