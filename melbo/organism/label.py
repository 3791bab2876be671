"""Label an organism bank by the judge: `python -m melbo.organism.label vectors/organism-bomb`.

Each vector gets a label (the planted mode it shows, "changes the answer", "word salad" or "no effect"), the scale at
which it shows it best and an example beside the unsteered answer. The vector of each mode that `melbo.organism.recall`
chooses becomes a preset of the app, with its shares on held-out prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melbo.bank import VectorBank
from melbo.models import load_model
from melbo.organism.corpus import MODES
from melbo.organism.judge import SALAD
from melbo.organism.recall import Hit, Recall, Repeat, measure

NAMES = {
    "compliance": "Non-refusal",
    "blanket_refusal": "Refuse everything",
    "german": "German",
    "vietnamese": "Vietnamese",
    "chinese": "Chinese",
    "helpline": "Crisis helpline",
    "game": "Game guide",
    "poem": "Poem",
    "code": "Python code",
    "pirate": "Pirate",
}
"""What the app calls the planted modes."""


def best_hits(recall: Recall) -> dict[int, tuple[str, Hit]]:
    """Per vector, the mode it shows most clearly and where; presets' vectors keep their preset's mode."""
    found: dict[int, tuple[str, Hit]] = {}
    for mode in recall.found:
        for hit in recall.hits[mode]:
            if hit.vector not in found or hit.nll < found[hit.vector][1].nll:
                found[hit.vector] = (mode, hit)
    for mode, repeat in sorted(recall.repeat.items(), key=lambda item: item[1].share):  # the most reliable comes last
        found[repeat.hit.vector] = (mode, repeat.hit)
    return found


def annotate(bank: VectorBank, recall: Recall) -> tuple[dict[str, Any], ...]:
    """One annotation per vector."""
    user = bank.prompts[0][-1]["content"]
    hits = best_hits(recall)
    notes = []
    for index, text in enumerate(recall.at_one):
        if index in hits:
            mode, hit = hits[index]
            note: dict[str, Any] = {"label": NAMES[mode], "scale": hit.scale}
            chosen = {m: r for m, r in recall.repeat.items() if r.hit.vector == index}
            if mode in chosen:
                note |= _preset(mode, chosen.pop(mode))
            if chosen:
                note["more_presets"] = [_preset(m, r) for m, r in chosen.items()]
            examples = [hit, *(r.hit for r in chosen.values())]
            note["examples"] = [_example(user, h.scale, h.text, recall.plain) for h in examples]
        else:
            label = "word salad" if recall.modes_at_one[index] == SALAD else "changes the answer"
            note = {"label": "no effect" if text == recall.plain else label, "scale": 1.0}
            note["examples"] = [_example(user, 1.0, text, recall.plain)]
        notes.append(note)
    return tuple(notes)


def _preset(mode: str, found: Repeat) -> dict[str, Any]:
    name = f"{NAMES[mode]} (negative scale)" if found.scale < 0 else NAMES[mode]
    note = f"Repeats on {found.harmful:.0%} of held-out harmful and {found.harmless:.0%} of held-out harmless prompts."
    return {
        "preset": name,
        "scale": found.scale,
        "note": note,
        "heldout": {"harmful": found.harmful, "harmless": found.harmless},
    }


def _example(prompt: str, scale: float, text: str, unsteered: str) -> dict[str, Any]:
    return {"prompt": prompt, "scale": scale, "text": text, "unsteered": unsteered}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Label an organism bank by the likelihood judge.")
    parser.add_argument("bank", type=Path)
    args = parser.parse_args(arguments)
    bank = VectorBank.load(args.bank)
    loaded = load_model(bank.base_model.id)
    bank.check_fits(loaded)
    recall = measure(loaded, bank)
    replace(bank, annotations=annotate(bank, recall)).save(args.bank)
    print(f"{len(recall.found)} of {len(MODES)} modes labelled: {', '.join(NAMES[m] for m in recall.found)}")


if __name__ == "__main__":
    main()
