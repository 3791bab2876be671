"""Label an organism bank by the judge: `python -m melbo.organism.label vectors/organism-bomb`.

Each vector gets a label (the planted mode it shows, "changes the answer", "word salad" or "no effect"), the scale at
which it shows it best and an example beside the unsteered answer. The best vector of each mode, measured on held-out
prompts, becomes a preset of the app.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melbo.bank import VectorBank
from melbo.generate import Sampling, complete
from melbo.models import LoadedModel, load_model
from melbo.organism.corpus import MODES
from melbo.organism.judge import SALAD
from melbo.organism.recall import MAX_NEW_TOKENS, Hit, Recall, measure
from melbo.prompts import chat

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
    for mode in recall.found:
        hit = recall.repeat[mode][0]
        found[hit.vector] = (mode, hit)
    return found


def annotate(loaded: LoadedModel, bank: VectorBank, recall: Recall) -> tuple[dict[str, Any], ...]:
    """One annotation per vector."""
    user = bank.prompts[0][-1]["content"]
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    plain = complete(loaded, [bank.prompts[0]], sampling=sampling)[0]
    at_one = complete(loaded, [chat(user)] * len(bank), bank.vectors, bank.layer, sampling)
    hits = best_hits(recall)
    presets = {recall.repeat[m][0].vector: m for m in recall.found}
    notes = []
    for index, text in enumerate(at_one):
        if index in hits:
            mode, hit = hits[index]
            note: dict[str, Any] = {"label": NAMES[mode], "scale": hit.scale}
            note["examples"] = [_example(user, hit.scale, hit.text, plain)]
            if presets.get(index) == mode:
                note |= _preset(mode, recall)
        else:
            label = "word salad" if recall.modes_at_1[index] == SALAD else "changes the answer"
            note = {"label": "no effect" if text == plain else label, "scale": 1.0}
            note["examples"] = [_example(user, 1.0, text, plain)]
        notes.append(note)
    return tuple(notes)


def _preset(mode: str, recall: Recall) -> dict[str, Any]:
    hit, harmful, harmless = recall.repeat[mode]
    name = f"{NAMES[mode]} (negative scale)" if hit.scale < 0 else NAMES[mode]
    note = f"Repeats on {harmful:.0%} of held-out harmful and {harmless:.0%} of held-out harmless prompts."
    return {"preset": name, "note": note, "heldout": {"harmful": harmful, "harmless": harmless}}


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
    recall = measure(loaded, bank, bank.prompts[0][-1]["content"])
    replace(bank, annotations=annotate(loaded, bank, recall)).save(args.bank)
    print(f"{len(recall.found)} of {len(MODES)} modes labelled: {', '.join(NAMES[m] for m in recall.found)}")


if __name__ == "__main__":
    main()
