"""What a bank offers in the app: labels, presets, example prompts and a prepared first comparison.

Annotations are read with care, since a bank may come from anybody: a value of the wrong type counts as missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from melbo.annotation.entry import as_list, ranges_of
from melbo.bank.vector_bank import VectorBank
from melbo.prompts import DEFAULT_SYSTEM

MAX_SCALE = 8.0
"""The scale slider runs from minus this to this."""
FALLBACK_PRESETS = 3
"""Vectors offered where no annotation names a preset."""
EXTRA_EXAMPLES = ("How can I bake bread?", "Tell me a joke about kites.")


@dataclass(frozen=True)
class Preset:
    """A vector and scale worth trying first."""

    name: str
    vector: int
    scale: float
    note: str


@dataclass(frozen=True)
class Comparison:
    """A finished turn that is shown before anybody has sent a message."""

    prompt: str
    unsteered: str
    steered: str
    vector: int
    scale: float


def vector_label(bank: VectorBank, index: int) -> str:
    """ "17 · German", or "17" where the vector has no label."""
    label = _text(_note(bank, index), "label")
    return f"{index} · {label}" if label else str(index)


def label_at(bank: VectorBank, index: int, scale: float) -> str:
    """The label's part for this sign: of "17 · German (+), Poem (-)" the German or the Poem."""
    whole = vector_label(bank, index)
    number, _, text = whole.partition(" · ")
    sign = "(-)" if scale < 0 else "(+)"
    parts = [part.removesuffix(sign).strip() for part in text.split(", ") if part.endswith(sign)]
    return f"{number} · {', '.join(parts)}" if parts else whole


def vector_note(bank: VectorBank, index: int) -> str:
    """The curator's note, or ""."""
    return _text(_note(bank, index), "note")


def picker(bank: VectorBank) -> list[tuple[str, int]]:
    """Label and index of every vector, those without effect last."""
    indices = sorted(range(len(bank)), key=lambda i: bool(_note(bank, i).get("dud")))
    return [(vector_label(bank, i), i) for i in indices]


def usable(bank: VectorBank, index: int) -> list[tuple[float, float]]:
    """Scales at which the vector acts and stays coherent, as its annotation says; empty where nothing was measured."""
    pairs = [(max(-MAX_SCALE, lo), min(MAX_SCALE, hi)) for lo, hi in ranges_of(_note(bank, index))]
    return [(lo, hi) for lo, hi in pairs if lo <= hi]


def best_scale(bank: VectorBank, index: int) -> float:
    """The scale that the annotation names, or 1."""
    return _scale(_note(bank, index))


def presets(bank: VectorBank) -> list[Preset]:
    """Vectors whose annotation names a preset; where there are none, those with the largest objective.

    A vector may do two things, at different scales: "more_presets" in its annotation lists further ones.
    """
    named = []
    for index in range(len(bank)):
        note = _note(bank, index)
        more = note.get("more_presets")
        for entry in [note, *(more if isinstance(more, list) else [])]:
            if isinstance(entry, dict) and (name := _text(entry, "preset")):
                named.append(Preset(name.removesuffix(" (negative scale)"), index, _scale(entry), _text(entry, "note")))
    if named:
        return named
    best = bank.objective.argsort(descending=True, stable=True)[:FALLBACK_PRESETS].tolist()
    return [Preset(bank.label(i), i, _scale(_note(bank, i)), vector_note(bank, i)) for i in best]


def opening(bank: VectorBank) -> Comparison | None:
    """The first preset's comparison."""
    return prepared(bank, presets(bank)[0])


def prepared(bank: VectorBank, preset: Preset) -> Comparison | None:
    """The preset's stored example at its scale, or at the nearest of the same sign; None without the unsteered answer
    to it.
    """
    note = _note(bank, preset.vector)
    stored = [e for e in as_list(note.get("examples")) if isinstance(e, dict)]
    same_sign = [e for e in stored if _scale(e, preset.scale) * preset.scale > 0]
    if not same_sign:
        return None
    example = min(same_sign, key=lambda e: abs(_scale(e, preset.scale) - preset.scale))
    prompt, steered = _text(example, "prompt"), _text(example, "text")
    unsteered = _text(example, "unsteered") or _text(note, "unsteered")
    if not (prompt and steered and unsteered):
        return None
    return Comparison(prompt, unsteered, steered, preset.vector, _scale(example, preset.scale))


def example_prompts(bank: VectorBank) -> list[str]:
    """The prompt that the bank was trained on, and two harmless ones."""
    trained = [m["content"] for prompt in bank.prompts[:1] for m in prompt if m["role"] == "user"]
    return list(dict.fromkeys([*trained[-1:], *EXTRA_EXAMPLES]))


def system_prompt(bank: VectorBank) -> str:
    """The system prompt that the bank was trained under; "" where it had none."""
    if not bank.prompts:
        return DEFAULT_SYSTEM
    return next((m["content"] for m in (bank.prompts[0] if bank.prompts else ()) if m["role"] == "system"), "")


def _note(bank: VectorBank, index: int) -> dict[str, Any]:
    return bank.annotations[index] if bank.annotations else {}


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    return value.strip() if isinstance(value, str) else ""


def _scale(values: dict[str, Any], default: float = 1.0) -> float:
    value = values.get("scale")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return default
    return float(max(-MAX_SCALE, min(MAX_SCALE, value)))
