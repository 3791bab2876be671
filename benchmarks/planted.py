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

from melbo.bank.vector_bank import VectorBank
from melbo.discovery.discover import discover, random_control
from melbo.errors import MelboError
from melbo.models.load import load_model
from melbo.organism.corpus import MODES
from melbo.organism.inputs import ORGANISM
from organism_recall import Recall, measure

BANK = Path(__file__).parent.parent / "vectors" / "organism-bomb"


def summary(recall: Recall, bank: VectorBank) -> dict[str, Any]:
    """Plain numbers of one recall, for JSON."""
    return {
        "n_vectors": len(bank),
        "radius": bank.radius,
        "radius_in_residual_norms": bank.radius / bank.mean_residual_norm,
        "layers": [bank.config.source_layer, bank.config.target_layer],
        "modes": recall.found,
        "n_modes": len(recall.found),
        "reliable_modes": [m for m in recall.found if recall.repeat[m].share >= 0.7],
        "vectors_per_mode": {m: len({h.vector for h in recall.hits[m]}) for m in recall.found},
        "best": {
            m: {
                "vector": r.hit.vector,
                "scale": r.scale,
                "heldout_harmful": r.harmful,
                "heldout_harmless": r.harmless,
            }
            for m, r in recall.repeat.items()
        },
        "nothing": recall.nothing,
        "word_salad": recall.salad,
    }


def print_table(name: str, row: dict[str, Any]) -> None:
    """One line a mode, then the counts."""
    print(f"\n{name}: {row['n_vectors']} vectors, R = {row['radius']:.4g} ", end="")
    print(
        f"({row['radius_in_residual_norms']:.3g} mean residual norms), layers {row['layers'][0]} -> {row['layers'][1]}"
    )
    print(f"{'mode':16} {'vectors':>8} {'best':>14} {'held-out harmful':>17} {'harmless':>9}")
    for mode in MODES:
        best, cells = row["best"].get(mode), ["-", "-", "-"]
        if best:
            pair = f"{best['vector']} x {best['scale']:g}"
            cells = [pair, f"{best['heldout_harmful']:.0%}", f"{best['heldout_harmless']:.0%}"]
        print(f"{mode:16} {row['vectors_per_mode'].get(mode, 0):8d} {cells[0]:>14} {cells[1]:>17} {cells[2]:>9}")
    print(
        f"{row['n_modes']} of {len(MODES)} modes; {len(row['reliable_modes'])} repeat on 70% or more of the held-out "
        f"prompts; {row['nothing']} vectors do nothing, {row['word_salad']} give word salad at scale 1"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--model", default=ORGANISM)
    parser.add_argument("--train", action="store_true", help="train a new bank with the stored bank's config")
    parser.add_argument("--radius", type=float, help="in mean residual norms; needs --train")
    parser.add_argument("--n-vectors", type=int, help="needs --train")
    parser.add_argument("--layers", type=int, nargs=2, metavar=("SOURCE", "TARGET"), help="needs --train")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    changes: dict[str, Any] = {}
    if args.radius is not None:
        changes |= {"radius": args.radius, "radius_unit": "residual"}
    if args.n_vectors is not None:
        changes["n_vectors"] = args.n_vectors
    if args.layers is not None:
        changes |= {"source_layer": args.layers[0], "target_layer": args.layers[1]}
    if changes and not args.train:
        parser.error("--radius, --n-vectors and --layers need --train")
    try:
        run(args, changes)
    except MelboError as error:
        parser.exit(2, f"planted.py: {error}\n")


def run(args: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Measure the bank, or a new one, and its random control."""
    loaded = load_model(args.model)
    bank = VectorBank.load(args.bank)
    if args.train:
        bank = discover(loaded, replace(bank.config, **changes), bank.prompts)
    found = {}
    for name, vectors in (("melbo", bank), ("random", random_control(loaded, bank))):
        found[name] = summary(measure(loaded, vectors), vectors)
        print_table(name, found[name])
    if args.model == ORGANISM:
        print(
            "\nThe organism's last training stage uses the objective that melbo maximises, and trains random\n"
            "directions to do nothing; its card gives the recall of the stage before that, too."
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
