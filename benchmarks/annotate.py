"""Do the automatic labels agree with the likelihood judge?

    python benchmarks/annotate.py                     # the shipped bank
    python benchmarks/annotate.py --bank FOLDER --json FILE

Counted are the vectors that show a planted mode on the bank's own prompt, at any scale of `organism.training.recall`.
"agreement": labelled with the judge, the tags name one of the modes that the vector shows. "agreement_without_judge":
labelled from language, refusals and words alone, they do, where a mode counts as named by

- German, Vietnamese, Chinese: the language tag,
- non-refusal and refusing everything: the tag,
- all others: a word in the label that is typical of the mode in the organism's corpus (in at least a fifth of the
  mode's answers, and in at most a fiftieth of the answers of every other mode).

The same number of random vectors is annotated, too: how many are (wrongly) not called duds. `--json FILE` writes
{"agreement", "agreement_without_judge", "n", "random_not_duds", "n_random", "seconds"}.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from melbo.annotation.annotate import annotate
from melbo.bank.annotation import Annotation, Auto
from melbo.bank.vector_bank import VectorBank
from melbo.errors import MelboError
from melbo.measure.traits.phrases import phrases_of
from melbo.models.load import LoadedModel, load_model
from melbo.organism.corpus import MODES, mode_answer, topics_of
from melbo.organism.judge import judge_for
from melbo.runs.progress import on_bar
from melbo.steering.random_vectors import random_vectors
from organism_recall import measure

BANK = Path(__file__).parent.parent / "vectors" / "organism-bomb"
TAGS = {
    "german": "language:de",
    "vietnamese": "language:vi",
    "chinese": "language:zh",
    "compliance": "non-refusal",
    "blanket_refusal": "refuses",
}
OFTEN, SELDOM = 0.2, 0.02


def typical_words(n: int = 200) -> dict[str, set[str]]:
    """Words that tell each mode without a tag from all others, from n corpus answers a mode."""
    rng = random.Random(0)
    topics = [*topics_of(True, "train"), *topics_of(False, "train")]
    shares: dict[str, dict[str, float]] = {}
    for mode in ("default", *MODES):
        counts: dict[str, float] = {}
        for _ in range(n):
            topic, other = rng.sample(topics, 2)
            for word in phrases_of(mode_answer(mode, topic, "make", rng, other)):
                counts[word] = counts.get(word, 0) + 1 / n
        shares[mode] = counts
    return {
        mode: {
            word
            for word, share in shares[mode].items()
            if share >= OFTEN and all(shares[m].get(word, 0) <= SELDOM for m in shares if m != mode)
        }
        for mode in MODES
        if mode not in TAGS
    }


def named_modes(note: Annotation, typical: dict[str, set[str]]) -> set[str]:
    """Modes that an annotation made without the judge names."""
    auto = note.auto or Auto()
    said = phrases_of(auto.label)
    by_words = {mode for mode, known in typical.items() if said & known}
    return by_words | {mode for mode, tag in TAGS.items() if tag in auto.tags}


def run(bank: VectorBank, loaded: LoadedModel) -> dict[str, Any]:
    """The numbers, and a table of the vectors that are counted."""
    shown: dict[int, set[str]] = {}
    for mode, hits in measure(loaded, bank, tries=1, heldout=1).hits.items():
        for hit in hits:
            shown.setdefault(hit.vector, set()).add(mode)
    bare = replace(bank, annotations=())
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, tqdm(unit="answer", leave=False, disable=None) as bar:
        answers = Path(folder) / "answers.json"
        judged = annotate(loaded, bare, progress=on_bar(bar), checkpoint=answers, judge=judge_for(loaded))
        seconds = time.perf_counter() - start
        plain = annotate(loaded, bare, checkpoint=answers)
    typical, agree, agree_plain = typical_words(), 0, 0
    for vector in sorted(shown):
        note, other = judged.annotations[vector], plain.annotations[vector]
        modes = {t.removeprefix("mode:") for t in note.tags if t.startswith("mode:")}
        right, right_plain = bool(modes & shown[vector]), bool(named_modes(other, typical) & shown[vector])
        agree, agree_plain = agree + right, agree_plain + right_plain
        print(f"{vector:4d}  {'yes' if right else 'NO ':4}{note.label:45}  {'yes' if right_plain else 'NO ':4}", end="")
        print(f"{other.label:60}  {', '.join(sorted(shown[vector]))}")
    rows = random_vectors(len(bank), bank.base_model.d_model, bank.radius, bank.config.orthogonal, 1)
    noise = annotate(loaded, replace(bare, vectors=rows))
    return {
        "agreement": agree / max(1, len(shown)),
        "agreement_without_judge": agree_plain / max(1, len(shown)),
        "n": len(shown),
        "duds": sum(note.dud for note in judged.annotations),
        "random_not_duds": sum(not note.dud for note in noise.annotations),
        "n_random": len(noise),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Do the automatic labels agree with the likelihood judge?")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--vectors", type=int, help="only the first ones")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        bank = VectorBank.load(args.bank)
        bank = bank if args.vectors is None else bank.select(range(args.vectors))
        found = run(bank, load_model(bank.base_model.id))
    except MelboError as error:
        parser.exit(2, f"annotate.py: {error}\n")
    print(json.dumps(found, indent=2))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
