"""What a model card says of the R sweep beside the bank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from melbo.bank.vector_bank import VectorBank
from melbo.radius_sweep.result import Sweep
from melbo.runs.escape import inline, shown

MEASURES = {"diversity": "Diversity (mean pairwise cosine distance)", "coherence": "Coherence, 0 to 10"}


def sweep_view(sweep: Sweep | None, folder: Path | None) -> dict[str, Any] | None:
    """The template's values.

    Args:
        folder: where the plot lies, if there is one.
    """
    if sweep is None:
        return None
    suggested = sweep.suggested
    return {
        "n": len(sweep.rows),
        "plot": folder is not None and (folder / "sweep.png").is_file(),
        "suggested": None if suggested.radius is None else shown(suggested.radius),
        "reason": inline(suggested.reason, 200),
        "unit": "times the mean residual norm" if sweep.unit == "residual" else "in activation units",
    }


def sweep_results(sweep: Sweep | None, bank: VectorBank) -> list[EvalResult]:
    """Diversity and coherence at the R of the sweep that is nearest to the bank's, and of random vectors there."""
    if sweep is None:
        return []
    row = min(sweep.rows, key=lambda r: abs(r.norm - bank.radius))
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="melbo-sweep",
            dataset_name="Prompts of the sweep",
            metric_type=f"{name}{suffix}",
            metric_name=f"{title}, {of} of norm {row.norm:.4g}",
            metric_value=round(getattr(arm, name), 4),
        )
        for name, title in MEASURES.items()
        for arm, suffix, of in ((row.found, "", "trained vectors"), (row.control, "-random-control", "random vectors"))
    ]
