"""Does the sweep's suggested R lie where the organism shows most of its planted modes?

    python benchmarks/sweep.py                        # the shipped bank's config
    python benchmarks/sweep.py --seed 1 --seed 2      # other starting points

The judge counts, in the same sweep, the planted modes that the vectors of each R bring out; the suggested R, which is
found without the judge, must lie within one grid step of an R with the largest count. `--json FILE` writes the numbers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from melbo.bank.vector_bank import VectorBank
from melbo.cli.sweep import table
from melbo.errors import MelboError
from melbo.measure.embeddings import load_embedder
from melbo.models.load import LoadedModel, load_model
from melbo.organism.inputs import ORGANISM
from melbo.organism.judge import judge_for
from melbo.radius_sweep.sweep import Sweep, SweepConfig, run_sweep

BANK = Path(__file__).parent.parent / "vectors" / "organism-bomb"


def summary(found: Sweep) -> dict[str, Any]:
    """Plain numbers of one sweep."""
    radii, counts = found.config.radii, [len(row.found.planted or ()) for row in found.rows]
    best = [r for r, count in zip(radii, counts, strict=True) if count == max(counts)]
    suggested = found.suggested.radius
    step = max(b - a for a, b in itertools.pairwise(radii))
    return {
        "seed": found.config.base.seed,
        "radii": radii,
        "modes": counts,
        "modes_of_random_vectors": [len(row.control.planted or ()) for row in found.rows],
        "distinct": [row.found.distinct for row in found.rows],
        "diversity": [row.found.diversity for row in found.rows],
        "coherence": [row.found.coherence for row in found.rows],
        "most_modes_at": best,
        "suggested": suggested,
        "modes_at_suggested": None if suggested is None else counts[radii.index(suggested)],
        "within_one_step": suggested is not None and min(abs(suggested - r) for r in best) <= step + 1e-9,
        "auto": found.auto_radius,
    }


def measure(loaded: LoadedModel, bank: VectorBank, seed: int | None) -> dict[str, Any]:
    """Sweep, print and summarise."""
    base = bank.config if seed is None else replace(bank.config, seed=seed)
    start, cpu = time.perf_counter(), _cpu_seconds()
    found = run_sweep(loaded, SweepConfig(base), bank.prompts, load_embedder(), judge=judge_for(loaded))
    result = summary(found)
    result |= {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu_seconds() - cpu}
    print(f"\nseed {base.seed}\n{table(found)}")
    print(
        f"most planted modes ({max(result['modes'])}) at R = {', '.join(f'{r:g}' for r in result['most_modes_at'])}; "
        f"suggested R within one step: {'yes' if result['within_one_step'] else 'NO'}; "
        f"{result['seconds']:.0f} s, {result['cpu_seconds']:.0f} s of CPU time"
    )
    return result


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Command line; exit code 1 where a suggested R is further than one step away."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--seed", type=int, action="append", help="default: the bank's; may be given many times")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        loaded, bank = load_model(ORGANISM), VectorBank.load(args.bank)
        found = [measure(loaded, bank, seed) for seed in args.seed or [None]]
    except MelboError as error:
        parser.exit(2, f"sweep.py: {error}\n")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    hits = sum(result["within_one_step"] for result in found)
    print(f"\n{hits} of {len(found)} suggestions within one step of an R with most planted modes")
    raise SystemExit(hits < len(found))


if __name__ == "__main__":
    main()
