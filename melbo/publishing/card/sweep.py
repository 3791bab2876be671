"""What a model card says of the R sweep beside the bank. Read with care: radius_sweep/file.py checks it in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from melbo.bank.save import SWEEP_FORMAT
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.publishing.card.text import inline, listed, number, shown
from melbo.runs.files import read_json

MEASURES = {"diversity": "Diversity (mean pairwise cosine distance)", "coherence": "Coherence, 0 to 10"}


def read_sweep(folder: Path | None) -> dict[str, Any] | None:
    """sweep.json with its rows, or None where there is none that can be read."""
    if folder is None:
        return None
    try:
        held = read_json(folder / "sweep.json")
    except BankError:
        return None
    if not isinstance(held, dict) or held.get("format") != SWEEP_FORMAT:
        return None
    rows = [r for r in listed(held.get("rows")) if isinstance(r, dict) and number(r.get("radius")) is not None]
    return held | {"rows": rows, "plot": (folder / "sweep.png").is_file()}


def sweep_view(sweep: dict[str, Any] | None) -> dict[str, Any] | None:
    """The template's values."""
    if sweep is None:
        return None
    suggested = sweep.get("suggested")
    suggested = suggested if isinstance(suggested, dict) else {}
    radius = number(suggested.get("radius"))
    return {
        "n": len(sweep["rows"]),
        "plot": sweep["plot"],
        "suggested": None if radius is None else shown(radius),
        "reason": inline(suggested.get("reason"), 200),
        "unit": "times the mean residual norm" if sweep.get("unit") == "residual" else "in activation units",
    }


def sweep_results(sweep: dict[str, Any] | None, bank: VectorBank) -> list[EvalResult]:
    """Diversity and coherence at the R of the sweep that is nearest to the bank's, and of random vectors there."""
    rows = [] if sweep is None else [r for r in sweep["rows"] if number(r.get("norm")) is not None]
    if not rows:
        return []
    row = min(rows, key=lambda r: abs(r["norm"] - bank.radius))
    found = []
    for name, title in MEASURES.items():
        for arm, suffix, of in (("found", "", "trained vectors"), ("control", "-random-control", "random vectors")):
            held = row.get(arm)
            value = number(held.get(name)) if isinstance(held, dict) else None
            if value is not None:
                found.append(
                    EvalResult(
                        task_type="text-generation",
                        dataset_type="melbo-sweep",
                        dataset_name="Prompts of the sweep",
                        metric_type=f"{name}{suffix}",
                        metric_name=f"{title}, {of} of norm {row['norm']:.4g}",
                        metric_value=round(value, 4),
                    )
                )
    return found
