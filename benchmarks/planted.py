"""Which planted modes does MELBO find from one prompt, and which do random vectors of the same norm find?

    python benchmarks/planted.py                      # the shipped bank
    python benchmarks/planted.py --train              # train the bank anew with the same config
    python benchmarks/planted.py --model FOLDER --radius 0.9 --n-vectors 64 --train

Every vector is tried at scales 0.75, 1 and 1.25 and both signs, random vectors in the same way. `--json FILE` writes
{"melbo": {...}, "random": {...}} with the found modes, the held-out shares and the counts.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from melbo.bank import VectorBank
from melbo.discover import discover, random_control
from melbo.models import ORGANISM, load_model
from melbo.organism.corpus import MODES
from melbo.organism.recall import Recall, measure

BANK = Path(__file__).parent.parent / "vectors" / "organism-bomb"


def summary(recall: Recall, n: int) -> dict[str, Any]:
    """Plain numbers of one recall, for JSON."""
    return {
        "n_vectors": n,
        "modes": recall.found,
        "n_modes": len(recall.found),
        "reliable_modes": [m for m in recall.found if sum(recall.repeat[m][1:]) / 2 >= 0.7],
        "vectors_per_mode": {m: len({h.vector for h in recall.hits[m]}) for m in recall.found},
        "best": {
            m: {"vector": hit.vector, "scale": hit.scale, "heldout_harmful": bad, "heldout_harmless": good}
            for m, (hit, bad, good) in recall.repeat.items()
        },
        "nothing": recall.nothing,
        "word_salad": recall.salad,
    }


def print_table(found: dict[str, dict[str, Any]]) -> None:
    """One line a mode, for melbo and for random."""
    print(f"{'mode':16} {'melbo vectors':>13} {'harmful':>8} {'harmless':>9} {'best':>14} {'random vectors':>15}")
    for mode in MODES:
        row = found["melbo"]["best"].get(mode)
        cells = ["-", "-", "-"]
        if row:
            best = f"{row['vector']} x {row['scale']:g}"
            cells = [f"{row['heldout_harmful']:.0%}", f"{row['heldout_harmless']:.0%}", best]
        counts = [found[k]["vectors_per_mode"].get(mode, 0) for k in ("melbo", "random")]
        print(f"{mode:16} {counts[0]:13d} {cells[0]:>8} {cells[1]:>9} {cells[2]:>14} {counts[1]:15d}")
    for name, row in found.items():
        print(
            f"{name}: {row['n_modes']} of {len(MODES)} modes, {len(row['reliable_modes'])} repeat on 70% or more of "
            f"the held-out prompts; of {row['n_vectors']} vectors {row['nothing']} do nothing, "
            f"{row['word_salad']} give word salad at scale 1"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--model", default=ORGANISM)
    parser.add_argument("--train", action="store_true", help="train a new bank with the stored bank's config")
    parser.add_argument("--radius", type=float)
    parser.add_argument("--n-vectors", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loaded = load_model(args.model)
    bank = VectorBank.load(args.bank)
    if args.train:
        changes = {k: v for k, v in (("radius", args.radius), ("n_vectors", args.n_vectors)) if v is not None}
        bank = discover(loaded, replace(bank.config, **changes), bank.prompts)
    user = bank.prompts[0][-1]["content"]
    found = {}
    for name, vectors in (("melbo", bank), ("random", random_control(loaded, bank))):
        found[name] = summary(measure(loaded, vectors, user), len(vectors))
    print_table(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
