"""Coherence against 240 answers of a real chat model that were read and rated (docs/metrics.md)."""

from __future__ import annotations

import json
import math
from pathlib import Path

from sklearn.metrics import roc_auc_score

from melbo.measure.coherence import CoherenceScale, coherence

RATED = json.loads(Path(__file__).with_name("coherence_ratings.json").read_text(encoding="utf-8"))
SCALE = CoherenceScale(0.976, 3.327, "SmolLM2-135M-Instruct")


def test_coherence_tells_good_answers_from_broken_ones_better_than_likelihood_does() -> None:
    good = [entry["rating"] >= 2 for entry in RATED]
    likelihood = [-(entry["nll"] or math.inf) if entry["nll"] is not None else -10.0 for entry in RATED]
    found = [coherence(entry["nll"] or math.inf, SCALE, entry["answer"], entry["near"]) for entry in RATED]
    assert len(RATED) == 240 and sum(good) == 123
    assert roc_auc_score(good, found) > 0.86 > 0.8 > roc_auc_score(good, likelihood)
    called = [g for g, value in zip(good, found, strict=True) if value >= 5]
    assert sum(called) / len(called) > 0.85, "most answers that are called coherent are"


def test_loops_and_letter_soup_are_not_coherent() -> None:
    for entry in RATED:
        if entry["fault"] in ("letters", "empty"):
            assert coherence(entry["nll"] or math.inf, SCALE, entry["answer"], entry["near"]) < 5, entry["answer"]
    loops = [coherence(e["nll"] or math.inf, SCALE, e["answer"], e["near"]) for e in RATED if e["fault"] == "loop"]
    assert sum(value < 5 for value in loops) >= 0.8 * len(loops)
    assert coherence(0.5, SCALE, "I.B.P.F.I.E.Y.C.E.S.F") == 0.0
