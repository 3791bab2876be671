"""What does it cost to look for vectors in an SAE's basis only? Objective against number of features; planted modes.

    python benchmarks/sae_basis.py --json FILE

Each run uses the shipped bank's config but for the method, the steps and the number of vectors; planted modes are
counted on the bank's own prompt, at six scales, as in benchmarks/planted.py. "any basis" is the control: as many random
directions in the SAE's place.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melbo.bank.vector_bank import VectorBank
from melbo.discovery.discover import discover, random_control, random_vectors
from melbo.errors import MelboError
from melbo.inspect.sae.compare import CONTROL_SEED
from melbo.inspect.sae.files import load_sae
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from organism_recall import on_training_prompt

BANK = Path(__file__).parent.parent / "vectors" / "organism-bomb"


def measure(n_vectors: int, sparsities: Sequence[int], steps: int, modes: bool = True) -> dict[str, dict[str, Any]]:
    """Mean objective (relative to MELBO's) and planted modes of MELBO, random vectors and sae-basis."""
    loaded = load_model(ORGANISM)
    shipped = VectorBank.load(BANK)
    config = replace(shipped.config, n_vectors=n_vectors, steps=steps)
    decoder = load_sae(ORGANISM, loaded=loaded, layer=shipped.layer).decoder
    control = random_vectors(len(decoder), loaded.d_model, 1.0, False, CONTROL_SEED)
    plain = discover(loaded, config, shipped.prompts)
    banks = {"melbo": plain, "random": random_control(loaded, plain)}
    for sparsity in sparsities:
        sparse = replace(config, method="sae-basis", sparsity=sparsity)
        banks[f"sae-basis {sparsity}"] = discover(loaded, sparse, shipped.prompts, decoder=decoder)
        banks[f"any basis {sparsity}"] = discover(loaded, sparse, shipped.prompts, decoder=control)
    best = float(plain.objective.mean())
    rows = {}
    for name, bank in banks.items():
        row: dict[str, Any] = {"objective": float(bank.objective.mean()) / best}
        if modes:
            row["modes"] = on_training_prompt(loaded, bank).found
        rows[name] = row
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n-vectors", type=int, default=16)
    parser.add_argument("--sparsity", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        rows = measure(args.n_vectors, args.sparsity, args.steps)
    except MelboError as error:
        parser.exit(2, f"sae_basis.py: {error}\n")
    print(f"{args.n_vectors} vectors, {args.steps} steps\n{'method':14} {'objective':>9} {'modes':>5}")
    for name, row in rows.items():
        print(f"{name:14} {row['objective']:9.2f} {len(row['modes']):5d}  {', '.join(row['modes'])}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
