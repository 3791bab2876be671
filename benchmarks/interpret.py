"""Do a vector's activating examples, and its SAE features, name the planted mode that it elicits?

    python benchmarks/interpret.py --json FILE

1. Which vectors elicit which mode, and with which sign: benchmarks/organism_recall.py, on the bank's own prompt.
2. Activating examples over held-out chats, as many of each mode as of the default: a vector passes where more of its
   top examples come from its mode's chats than from any other's. "effect" compares the vector's effect after the last
   block, "vector" the vector itself at the source layer, both at the last position before the answer.
3. The control: random vectors of the same norm, each with the mode and sign of a vector.
4. Whether the sparse decomposition names a feature of the mode.
`--json` writes {"activating_share", "activating_share_random", "sae_share", ...}; the two first are of "effect".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import MelboError
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.report import ActivatingConfig, ActivatingReport, Direction, Site
from melbo.inspect.sae.compare import CONTROL_SEED, Parts, decompose
from melbo.inspect.sae.dictionary import Sae
from melbo.inspect.sae.features import FeatureNotes, describe_features
from melbo.inspect.sae.files import load_sae
from melbo.models.load import LoadedModel, load_model
from melbo.organism.corpus import MODES
from melbo.organism.inputs import ORGANISM, organism_corpus
from melbo.steering.random_vectors import random_vectors
from organism_recall import measure

NOTE_CHATS = 2200
"""Chats that the features' marks are from."""
FEATURES = 8
"""Features of a decomposition."""
TOP = 5
"""How many of them, largest first, may name the mode."""
REPEATS = 20
"""Random directions per vector of the control."""
BANK = Path(__file__).parent.parent / "vectors" / "organism-bomb"
Case = tuple[int, int, str]
"""Vector, sign, mode."""


def elicited(loaded: LoadedModel, bank: VectorBank) -> list[Case]:
    """Every vector and sign that shows a planted mode on the bank's own prompt."""
    recall = measure(loaded, bank, tries=1, heldout=1)
    found = {(h.vector, 1 if h.scale > 0 else -1, mode) for mode, hits in recall.hits.items() for h in hits}
    return sorted(found)


def share(cases: list[Case], directions: dict[tuple[int, int], Direction]) -> float:
    """Share of cases whose examples come from the mode's chats more than from any other's."""
    return sum(directions[index, sign].leading_mark == mode for index, sign, mode in cases) / len(cases)


def by_sign(directions: tuple[Direction, ...]) -> dict[tuple[int, int], Direction]:
    """Directions by vector and sign."""
    return {(d.index, d.sign): d for d in directions}


def activating(
    loaded: LoadedModel, bank: VectorBank, cases: list[Case], site: Site, chats: int, seed: int, k: int
) -> tuple[float, float, ActivatingReport]:
    """The share, that of the control, and the report."""
    places = {index: i for i, index in enumerate(sorted({index for index, _, _ in cases}))}
    moved = [(places[index], sign, mode) for index, sign, mode in cases]
    config = ActivatingConfig(site=site, k=k, n_random=len(places), seed=seed)
    corpus = organism_corpus(chats * (len(MODES) + 1), seed, "heldout")
    report = find_activating(loaded, bank.select(list(places)), corpus, config)
    return share(moved, by_sign(report.directions)), share(moved, by_sign(report.control)), report


def sae_share(loaded: LoadedModel, bank: VectorBank, cases: list[Case]) -> tuple[float, float]:
    """Share of cases whose mode is a mark of the TOP largest features of the shipped SAE, and that of the control.

    Only features with enough examples take part: rare ones fit a vector by chance, and have no mark.
    """
    sae = load_sae(ORGANISM, loaded=loaded, layer=bank.layer)
    notes = describe_features(loaded, sae, organism_corpus(NOTE_CHATS, 3), "decision")
    modes = [mode for _, _, mode in cases]
    vectors = torch.stack([bank.vector(vector, float(sign)) for vector, sign, _ in cases])
    control = random_vectors(len(modes) * REPEATS, sae.spec.d_in, 1.0, False, CONTROL_SEED)
    return named(sae, notes, vectors, modes), named(sae, notes, control, modes * REPEATS)


def named(sae: Sae, notes: FeatureNotes, vectors: Tensor, modes: Sequence[str]) -> float:
    """Share of the vectors whose largest features name their mode."""
    found = decompose(sae, vectors, FEATURES, True, notes.common)
    return sum(mode in marks(parts, notes) for parts, mode in zip(found, modes, strict=True)) / len(modes)


def marks(parts: Parts, notes: FeatureNotes) -> set[str]:
    """Marks of the TOP features with a coefficient above zero."""
    pairs = list(zip(parts.features, parts.weights, strict=True))[:TOP]
    return {notes.marks[feature] for feature, weight in pairs if weight > 0}


def print_table(cases: list[Case], report: ActivatingReport) -> None:
    """One line a case."""
    order = sorted({index for index, _, _ in cases})
    found = by_sign(report.directions)
    print(f"\nsite {report.config.site}, layer {report.layer}: top {report.config.k} of {report.passages} chats")
    for index, sign, mode in cases:
        marks = ", ".join(f"{m} {n}" for m, n in found[order.index(index), sign].marks[:3])
        right = "+" if found[order.index(index), sign].leading_mark == mode else "-"
        print(f"{right} vector {index:3d} x {sign:+d}  {mode:16} {marks}")


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    bank = VectorBank.load(args.bank)
    loaded = load_model(bank.base_model.id)
    cases = elicited(loaded, bank)
    if not cases:
        raise MelboError(f"no vector of {args.bank} elicits a planted mode; there is nothing to compare.")
    found: dict[str, Any] = {"cases": [{"vector": v, "sign": s, "mode": m} for v, s, m in cases]}
    for site in get_args(Site):
        own, random, report = activating(loaded, bank, cases, site, args.chats, args.seed, args.k)
        print_table(cases, report)
        print(f"share {own:.0%}, random {random:.0%} of {len(cases)}")
        end = "" if site == "effect" else f"_{site}"
        found |= {f"activating_share{end}": own, f"activating_share_random{end}": random}
    sparse, sparse_random = sae_share(loaded, bank, cases)
    found |= {"sae_share": sparse, "sae_share_random": sparse_random}
    print(f"\nSAE share {sparse:.0%}, random {sparse_random:.0%}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--chats", type=int, default=100, help="held-out chats of each mode")
    parser.add_argument("--k", type=int, default=20, help="examples per vector and sign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        run(args)
    except MelboError as error:
        parser.exit(2, f"interpret.py: {error}\n")


if __name__ == "__main__":
    main()
