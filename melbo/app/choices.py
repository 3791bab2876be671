"""What a bank offers in the app: labels, presets, example prompts and a prepared first comparison.

Annotations are read with care, since a bank may come from anybody: a value of the wrong type counts as missing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from melbo.annotation.evidence import OFTEN
from melbo.bank.annotation import Annotation, MorePreset
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.organism.inputs import ORGANISM
from melbo.prompts import BOMB, DEFAULT_SYSTEM, REFUSED

MAX_SCALE = 8.0
"""The scale slider runs from minus this to this where the bank's usable scale is not known."""
LARGEST_SCALE = 50.0
"""The most that any bank's slider reaches, and a request may name."""
ROUND = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MOST_PRESETS = 16
"""Vectors offered where no annotation names a preset, but traits repeat."""
FALLBACK_PRESETS = 3
"""Vectors offered where nothing is known of any."""
HARMFUL = frozenset((BOMB, *REFUSED))
EXTRA_EXAMPLES = ("How can I bake bread?", "Tell me a joke about kites.")


@dataclass(frozen=True)
class VectorPreset:
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
    label = bank.annotation(index).label.strip()
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
    return bank.annotation(index).note.strip()


def picker(bank: VectorBank) -> list[tuple[str, int]]:
    """Label and index of every vector, those without effect last."""
    indices = sorted(range(len(bank)), key=lambda i: bank.annotation(i).is_dud)
    return [(vector_label(bank, i), i) for i in indices]


def scale_limit(bank: VectorBank) -> float:
    """The scale slider runs from minus this to this: a round number from 3 times the usable scale, and from every scale
    that an annotation names.
    """
    largest = bank.usable_scale.largest
    if largest is None:
        return MAX_SCALE
    least = min(LARGEST_SCALE, max(3 * largest, bank.largest_noted))
    power = 10.0 ** math.floor(math.log10(least))
    above = next(part for part in ROUND if part * power >= 0.999 * least)
    return min(LARGEST_SCALE, round(above * power, 4))


def scale_step(limit: float) -> float:
    """The step of a scale slider that reaches `limit`."""
    return 0.01 if limit <= 1 else 0.05 if limit <= MAX_SCALE else 0.25


def usual_scale(bank: VectorBank) -> float:
    """The scale to start from where none is named for a vector: the largest usable one, or else 1."""
    return bounded(bank, bank.usable_scale.largest or 1.0)


def bounded(bank: VectorBank, scale: float) -> float:
    """A scale within the slider's range."""
    limit = scale_limit(bank)
    return float(max(-limit, min(limit, scale)))


def usable(bank: VectorBank, index: int) -> list[tuple[float, float]]:
    """Scales at which the vector acts and stays coherent, as its annotation says; empty where nothing was measured."""
    limit = scale_limit(bank)
    pairs = [(max(-limit, lo), min(limit, hi)) for lo, hi in bank.annotation(index).scale_ranges]
    return [(lo, hi) for lo, hi in pairs if lo <= hi]


def ranges_text(ranges: Sequence[tuple[float, float]]) -> str:
    """ "-2 to -0.5, 1"; "" for none."""
    return ", ".join(f"{lo:.3g}" if lo == hi else f"{lo:.3g} to {hi:.3g}" for lo, hi in ranges)


def best_scale(bank: VectorBank, index: int) -> float:
    """The scale that the annotation names, or the bank's usual one."""
    return _named(bank, bank.annotation(index).scale)


def presets(bank: VectorBank) -> list[VectorPreset]:
    """Vectors whose annotation names a preset; where there are none, those whose trait shows on at least half of the
    held-out prompts; where none does, some in equal distances. Never by objective: the largest are often word salad.

    A vector may do two things, at different scales: "more_presets" in its annotation lists further ones.
    """
    named = []
    for index in range(len(bank)):
        note = bank.annotation(index)
        offered: tuple[Annotation | MorePreset, ...] = (note, *note.more_presets)
        for entry in offered:
            if name := entry.preset.strip().removesuffix(" (negative scale)"):
                named.append(VectorPreset(name, index, _named(bank, entry.scale), entry.note.strip()))
    if named:
        return named
    chosen = _repeating(bank) or _unnamed(bank)
    return [VectorPreset(bank.label(i), i, best_scale(bank, i), vector_note(bank, i)) for i in chosen]


def _repeating(bank: VectorBank) -> list[int]:
    """Vectors whose trait repeats, most often first, one for each label."""
    shares = {i: note.traits[0].share for i, note in enumerate(bank.annotations) if note.traits}
    often = sorted((i for i, share in shares.items() if share >= OFTEN), key=lambda i: -shares[i])
    return list({bank.label(i): i for i in reversed(often)}.values())[::-1][:MOST_PRESETS]


def _unnamed(bank: VectorBank) -> list[int]:
    """FALLBACK_PRESETS vectors to try first where nobody has named any; no duds, if there are others."""
    left = [i for i in range(len(bank)) if not bank.annotation(i).is_dud] or list(range(len(bank)))
    n = min(FALLBACK_PRESETS, len(left))
    return [left[i * (len(left) - 1) // max(1, n - 1)] for i in range(n)]


def lit(bank: VectorBank, mix: Sequence[tuple[int | None, float]]) -> int | None:
    """The number of the preset that this mix is; None: it is none."""
    return next((i for i, p in enumerate(presets(bank)) if [(p.vector, p.scale)] == list(mix)), None)


def opening(bank: VectorBank) -> Comparison | None:
    """The first preset's comparison."""
    return prepared(bank, presets(bank)[0])


def prepared(bank: VectorBank, preset: VectorPreset) -> Comparison | None:
    """The preset's stored example, one with a harmless prompt if there is, at its scale, or at the nearest of the same
    sign; None without the unsteered answer to it.
    """
    note = bank.annotation(preset.vector)
    scales = [(preset.scale if e.scale is None else bounded(bank, e.scale), e) for e in note.examples]
    same_sign = [(scale, e) for scale, e in scales if scale * preset.scale > 0]
    if not same_sign:
        return None
    scale, example = min(same_sign, key=lambda pair: (_shunned(bank, pair[1].prompt), abs(pair[0] - preset.scale)))
    prompt, steered = example.prompt.strip(), example.text.strip()
    unsteered = example.unsteered.strip() or note.unsteered.strip()
    if not (prompt and steered and unsteered):
        return None
    return Comparison(prompt, unsteered, steered, preset.vector, scale)


def example_prompts(bank: VectorBank) -> list[str]:
    """The prompt that the bank was trained on, unless it is better not asked first, and two harmless ones."""
    trained = [m["content"] for prompt in bank.prompts[:1] for m in prompt if m["role"] == "user"]
    return list(dict.fromkeys([*(p for p in trained[-1:] if not _shunned(bank, p)), *EXTRA_EXAMPLES]))


def _shunned(bank: VectorBank, prompt: str) -> bool:
    """Whether a prompt asks a real model for something harmful."""
    return bank.base_model.id != ORGANISM and prompt.strip() in HARMFUL


def system_prompt(bank: VectorBank) -> str:
    """The system prompt that the bank was trained under; "" where it had none."""
    if not bank.prompts:
        return DEFAULT_SYSTEM
    return next((m["content"] for m in (bank.prompts[0] if bank.prompts else ()) if m["role"] == "system"), "")


def checked_index(bank: VectorBank, value: object) -> int:
    """A vector's number as the browser sends it.

    Raises:
        BankError: it is no number of this bank.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        raise BankError("choose a vector first.")
    bank.vector(int(value))
    return int(value)


def first_vector(bank: VectorBank) -> int:
    """The first preset's: what a tab shows of a bank before anybody chose."""
    return presets(bank)[0].vector


def _named(bank: VectorBank, scale: float | None) -> float:
    """A scale as an annotation names it, within the slider's range."""
    return usual_scale(bank) if scale is None else bounded(bank, scale)
