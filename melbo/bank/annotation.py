"""What is known of one vector: an entry of annotations.json, typed; and how a curator's edits outlive a new one.

`auto` keeps what the program said. A label or tags that differ from it were edited by hand, and stay; so do the note,
presets and every key that this program does not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from melbo.errors import BankError
from melbo.runs.files import read_json
from melbo.runs.parse import dump, parse_what_fits

DUD_LABEL = "no effect"


@dataclass(frozen=True, slots=True)
class LlmScores:
    """What a language model says of one answer, 1 to 10, or the means over `n` answers."""

    coherence: float | None = None
    difference: float | None = None
    """From a typical answer."""
    refusal: float | None = None
    n: int | None = None
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """One steered answer beside the unsteered one."""

    prompt: str = ""
    scale: float | None = None
    text: str = ""
    unsteered: str = ""
    llm: LlmScores | None = None
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """What a vector (or the control) does at one scale, over all prompts. What was not measured is None."""

    scale: float | None = None
    n: int | None = None
    """Answers."""
    coherence: float | None = None
    """Mean, 0 to 10."""
    refusal: float | None = None
    """Share, as `same` and `degenerate`."""
    change: float | None = None
    """Mean cosine distance of the embeddings to the unsteered answers."""
    same: float | None = None
    """Share equal to the unsteered answer."""
    degenerate: float | None = None
    languages: Mapping[str, int] | None = None
    """Answers by language; "unknown" where it cannot be told."""
    acts: int | None = None
    """Prompts whose answer changes more than under every random vector."""
    control: ScaleRow | None = None
    """Of an annotation's metrics: random vectors of the same norm at the same size of scale, both signs."""
    kl: float | None = None
    """This and the next two stand in older banks only: mean KL of the first tokens; the share of innocuous prompts
    whose answer changes, and the KL there."""
    off_target: float | None = None
    off_target_kl: float | None = None
    llm: LlmScores | None = None
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TraitShare:
    """How often a trait of the answers repeats on prompts that it was not chosen on."""

    trait: str = ""
    """Its name: "Citations", "German", or words that the answers share, in quotation marks."""
    kind: str = ""
    """"behaviour", "language", "refusal", "form", "topic" or "words"."""
    scale: float | None = None
    shown: int | None = None
    """Prompts whose answer shows it at that scale, where the unsteered answer does not."""
    of: int | None = None
    """Prompts whose unsteered answer leaves room for it."""
    random: float | None = None
    """Share of the answers that show it under random vectors of the same norm and scale."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """`shown` of `of`, 0 where nothing was measured."""
        return (self.shown or 0) / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True)
class Auto:
    """Label and tags as the program wrote them."""

    label: str = ""
    tags: tuple[str, ...] = ()
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MorePreset:
    """A further scale of the same vector that is worth trying."""

    preset: str = ""
    """Its name."""
    scale: float | None = None
    note: str = ""
    heldout: Mapping[str, float] | None = None
    """Shares of held-out prompts on which it repeats."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """One entry of annotations.json. What it lacks, or holds as another type, is empty or None here."""

    label: str = ""
    tags: tuple[str, ...] = ()
    """"language:de", "non-refusal", "refuses", "degenerate", "incoherent", "weak", "unclear", "dud", "mode:pirate"."""
    tried: str = ""
    """What was tried, in words."""
    scale: float | None = None
    """Best scale: where its trait, or else the change beyond the control, is clearest, weighted by coherence."""
    scale_ranges: tuple[tuple[float, float], ...] = ()
    """[lowest, highest] usable scale for each sign at which the vector acts and stays coherent."""
    metrics: ScaleRow | None = None
    """At the best scale, with its control."""
    by_scale: tuple[ScaleRow, ...] = ()
    traits: tuple[TraitShare, ...] = ()
    """What the label is read from, most telling first."""
    examples: tuple[Example, ...] = ()
    dud: bool = False
    """As it is written; `is_dud` asks label and tags too."""
    auto: Auto | None = None
    preset: str = ""
    """Name under which the app offers the vector."""
    note: str = ""
    """The curator's."""
    heldout: Mapping[str, float] | None = None
    """Of a preset: shares of held-out prompts on which it repeats."""
    more_presets: tuple[MorePreset, ...] = ()
    unsteered: str = ""
    """The unsteered answer, where the examples have none."""
    stored: Mapping[str, JsonValue] = field(default_factory=dict, compare=False, repr=False)
    """The entry as it was read; what is unchanged or unknown is written again as it stood."""

    @property
    def is_dud(self) -> bool:
        """Whether the vector does nothing that random vectors do not do."""
        return self.dud or "dud" in self.tags or self.label.strip() == DUD_LABEL


_FIELDS = tuple(f.name for f in fields(Annotation) if f.name != "stored")
_WRITTEN = _FIELDS[: _FIELDS.index("auto") + 1]
"""What `melbo annotate` writes in every entry; the rest is the curator's."""


def read_annotation(entry: Mapping[str, Any]) -> Annotation:
    """An entry of annotations.json: values of another type count as missing."""
    known = parse_what_fits(Annotation, {name: entry[name] for name in _FIELDS if name in entry})
    return replace(known, stored=entry)


def write_annotation(note: Annotation) -> dict[str, Any]:
    """The entry of annotations.json; one that was read and not changed gives the same bytes."""
    was, empty = read_annotation(note.stored), Annotation()
    if note.stored and note == was:
        return dict(note.stored)
    kept = {name for name in note.stored if name not in _FIELDS or getattr(note, name) == getattr(was, name)}
    values = dump(replace(note, stored={}), none=False)
    for example in values.get("examples", ()):  # what a person left out stays out
        for name in ("prompt", "unsteered"):
            if not example[name]:
                del example[name]
    wanted = {n for n in _FIELDS if getattr(note, n) != getattr(empty, n) or (note.auto and n in _WRITTEN)} & {*values}
    first = {name: values[name] for name in _FIELDS if name in wanted and name not in note.stored}
    rest = {n: item if n in kept else values[n] for n, item in note.stored.items() if n in kept or n in wanted}
    return first | rest


def read_annotations(folder: Path, n_vectors: int) -> tuple[Annotation, ...]:
    """annotations.json, one entry per vector, or () where there is none.

    Raises:
        BankError: it is damaged or of another length.
    """
    path = folder / "annotations.json"
    if not path.exists():
        return ()
    listed = read_json(path)
    if not isinstance(listed, list) or len(listed) != n_vectors:
        raise BankError(f"{path} must hold a list of {n_vectors} entries.")
    if not all(isinstance(item, dict) for item in listed):
        raise BankError(f"{path} must hold one object per vector.")
    return tuple(read_annotation(item) for item in listed)


def merged(old: Annotation, new: Annotation) -> Annotation:
    """The new annotation with what a curator wrote into the old one.

    Kept: a label or tags that differ from the old `auto` (or have none beside them), the note, all unknown keys, and,
    where the entry names a preset, its scale and its first example.
    """
    auto = old.auto or Auto()
    kept: dict[str, Any] = {name: getattr(old, name) for name in _FIELDS if name not in _WRITTEN}
    kept |= {name: v for name in ("label", "tags") if (v := getattr(old, name)) and v != getattr(auto, name)}
    if old.preset:
        own = tuple(replace(e, llm=None) for e in old.examples[:1])  # scores are this program's, not a curator's
        kept["examples"] = (*own, *(e for e in new.examples if e not in own))
        kept |= {} if old.scale is None else {"scale": old.scale}
    return replace(new, **kept, stored={k: v for k, v in old.stored.items() if k not in _WRITTEN})
