"""What is known of one vector: the entry of annotations.json, and how a curator's edits outlive a new annotation.

"auto" keeps what the program said. A label or tags that differ from it were edited by hand, and stay; so do the note,
presets and every key that this program does not write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

DUD_LABEL = "no effect"


@dataclass(frozen=True)
class Example:
    """One steered answer beside the unsteered one."""

    prompt: str
    scale: float
    text: str
    unsteered: str


@dataclass(frozen=True)
class ScaleRow:
    """What a vector (or the control) does at one scale, over all prompts."""

    scale: float
    n: int
    """Answers."""
    coherence: float
    """Mean, 0 to 10."""
    refusal: float
    """Share, as `same` and `degenerate`."""
    change: float
    """Mean cosine distance of the embeddings to the unsteered answers."""
    same: float
    """Share equal to the unsteered answer."""
    degenerate: float
    languages: dict[str, int]
    """Answers by language; "unknown" where it cannot be told."""
    acts: int = 0
    """Prompts whose answer changes more than under every random vector."""


@dataclass(frozen=True)
class Annotation:
    """What the program found out about one vector."""

    label: str
    tags: tuple[str, ...]
    """"language:de", "non-refusal", "refuses", "degenerate", "incoherent", "dud", "mode:pirate"."""
    tried: str
    """What was tried, in words."""
    scale: float
    """Best scale: most change beyond the control, weighted by coherence. 1 for a dud."""
    scale_ranges: tuple[tuple[float, float], ...]
    """[lowest, highest] usable scale for each sign at which the vector acts and stays coherent."""
    metrics: ScaleRow
    """At the best scale."""
    control: ScaleRow
    """Random vectors of the same norm at the same size of scale, both signs."""
    by_scale: tuple[ScaleRow, ...]
    examples: tuple[Example, ...]

    @property
    def dud(self) -> bool:
        """Whether the vector does nothing that random vectors do not do."""
        return "dud" in self.tags

    def to_dict(self) -> dict[str, Any]:
        """One entry of annotations.json."""
        own = asdict(self)
        own["metrics"] |= {"control": own.pop("control")}
        return own | {"dud": self.dud, "auto": {"label": self.label, "tags": list(self.tags)}}


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new entry with what a curator wrote into the old one.

    Kept: a label or tags that differ from the old "auto" (or have none beside them), the note, all unknown keys, and,
    where the entry names a preset, its scale and its first example.
    """
    auto = old.get("auto")
    auto = auto if isinstance(auto, Mapping) else {}
    kept = {k: v for k, v in old.items() if k not in new}
    for key in ("label", "tags"):
        if old.get(key) and old[key] != auto.get(key):
            kept[key] = old[key]
    if old.get("preset"):
        kept |= {"scale": old["scale"]} if "scale" in old else {}
        first = [e for e in as_list(old.get("examples")) if isinstance(e, Mapping)][:1]
        own = [{k: v for k, v in e.items() if k != "llm"} for e in first]  # scores are this program's, not a curator's
        kept["examples"] = [*own, *(e for e in new.get("examples", ()) if e not in own)]
    return {**new, **kept}


def as_list(value: object) -> list[Any]:
    """The value where it is a list, else an empty one: entries may come from anybody."""
    return list(value) if isinstance(value, (list, tuple)) else []


def text_of(entry: Mapping[str, Any], key: str) -> str:
    """A text field, "" where it is missing or of another type."""
    value = entry.get(key)
    return value.strip() if isinstance(value, str) else ""


def number_of(entry: object, key: str) -> float | None:
    """A finite number, None where it is missing or of another type."""
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def tags_of_entry(entry: Mapping[str, Any]) -> list[str]:
    """Its tags, those that are text."""
    return [t for t in as_list(entry.get("tags")) if isinstance(t, str)]


def ranges_of(entry: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Its usable scales, those that are pairs of numbers."""
    pairs = [as_list(p) for p in as_list(entry.get("scale_ranges"))]
    numbers = [[number_of({"x": v}, "x") for v in p] for p in pairs if len(p) == 2]
    return [(lo, hi) for lo, hi in numbers if lo is not None and hi is not None]


def usable_ranges(scales: Sequence[float], usable: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """For each sign, the longest run of tried scales that are all usable, as (lowest, highest); negative first.

    Of runs of equal length the one nearer to 0 is taken.
    """
    found = []
    for sign in (-1, 1):
        own = sorted(((s, ok) for s, ok in zip(scales, usable, strict=True) if s * sign > 0), key=lambda x: abs(x[0]))
        best: list[float] = []
        run: list[float] = []
        for scale, ok in own:
            run = [*run, scale] if ok else []
            best = run if len(run) > len(best) else best
        if best:
            found.append((min(best), max(best)))
    return tuple(found)


def is_dud(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation says that the vector does nothing that random ones do not do."""
    return entry.get("dud") is True or "dud" in tags_of_entry(entry) or text_of(entry, "label") == DUD_LABEL
