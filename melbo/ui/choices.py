"""What a bank offers in the app: labels, presets, example prompts and a prepared first comparison.

Annotations are read with care, since a bank may come from anybody: a value of the wrong type counts as missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from melbo.bank import VectorBank
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


def vector_note(bank: VectorBank, index: int) -> str:
    """The curator's note, or ""."""
    return _text(_note(bank, index), "note")


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
                named.append(Preset(name, index, _scale(entry), _text(entry, "note")))
    if named:
        return named
    best = bank.objective.argsort(descending=True, stable=True)[:FALLBACK_PRESETS].tolist()
    return [Preset(bank.label(i), i, _scale(_note(bank, i)), vector_note(bank, i)) for i in best]


def opening(bank: VectorBank) -> Comparison | None:
    """The first preset's first example, if the bank also stores the unsteered answer to it."""
    first = presets(bank)[0]
    note = _note(bank, first.vector)
    examples = note.get("examples")
    example = examples[0] if isinstance(examples, list) and examples else None
    if not isinstance(example, dict):
        return None
    prompt, steered = _text(example, "prompt"), _text(example, "text")
    unsteered = _text(example, "unsteered") or _text(note, "unsteered")
    if not (prompt and steered and unsteered):
        return None
    return Comparison(prompt, unsteered, steered, first.vector, _scale(example, first.scale))


def example_prompts(bank: VectorBank) -> list[str]:
    """The prompt that the bank was trained on, and two harmless ones."""
    trained = [m["content"] for prompt in bank.prompts[:1] for m in prompt if m["role"] == "user"]
    return list(dict.fromkeys([*trained[-1:], *EXTRA_EXAMPLES]))


def system_prompt(bank: VectorBank) -> str:
    """The system prompt that the bank was trained under; "" where it had none."""
    if not bank.prompts:
        return DEFAULT_SYSTEM
    return next((m["content"] for m in bank.prompts[0] if m["role"] == "system"), "")


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
