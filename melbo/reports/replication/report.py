"""The report of a study as one HTML file without outside parts, and as Markdown with its plots beside it.

All text from users and models is escaped. The same results give the same report.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melbo.bank.annotation import ScaleRow
from melbo.bank.vector_bank import VectorBank
from melbo.measure.coherence import COHERENT
from melbo.radius_sweep.plot import draw_sweep
from melbo.radius_sweep.result import Sweep
from melbo.reports.page import inside, render
from melbo.reports.replication.finding import CONTROL_RATIO, FOUND_SHARE, Answer, Finding
from melbo.reports.replication.plots import draw_scales, draw_shares
from melbo.runs.files import write_file

HTML, MARKDOWN = "report.html", "report.md"


def write_report(folder: Path, bank: VectorBank, sweep: Sweep, findings: Sequence[Finding]) -> Path:
    """Write report.html, report.md and plots/; the path of the first.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    plots = {"sweep": draw_sweep(sweep, ".png"), "shares": draw_shares(findings)}
    scales = draw_scales(findings)
    if scales is not None:
        plots["scales"] = scales
    for name, image in plots.items():
        write_file(folder / "plots" / f"{name}.png", image)
    view = report_view(bank, sweep, findings)
    linked = {name: f"plots/{name}.png" for name in plots}
    write_file(folder / MARKDOWN, render("replication/report.md.jinja", view, linked))
    return write_file(folder / HTML, render("replication/report.html.jinja", view, inside(plots)))


def report_view(bank: VectorBank, sweep: Sweep, findings: Sequence[Finding]) -> dict[str, Any]:
    """The templates' values: numbers as text, foreign texts as they are."""
    duds = [i for i, note in enumerate(bank.annotations) if note.is_dud]
    config, suggested = bank.config, sweep.suggested
    unit = "mean residual norms" if sweep.config.unit == "residual" else "activation units"
    counts = {v: sum(f.verdict == v for f in findings) for v in ("found", "partly", "not found", "cannot be tested")}
    return {
        "model": bank.base_model.id,
        "revision": bank.base_model.revision or "",
        "prompts": [p[-1]["content"] for p in bank.prompts],
        "system": next((m["content"] for m in bank.prompts[0] if m["role"] == "system"), ""),
        "facts": [
            ("vectors", f"{len(bank)} ({config.method}, {config.optimizer}, {config.steps} steps, seed {config.seed})"),
            ("layers", f"{config.source_layer} → {config.target_layer} of {bank.base_model.n_layers}"),
            ("R", f"{bank.radius:.4g} activation units, {bank.radius / bank.mean_residual_norm:.3g} residual norms"),
            ("objective", f"power {config.power:g}, root {config.root:g}, last {config.target_tokens} prompt tokens"),
            ("duds", f"{len(duds)} of {len(bank)} do nothing that random vectors do not do"),
            ("made with", ", ".join(f"{k} {v}" for k, v in sorted(bank.versions.items()))),
        ],
        "acting": [_acting(bank, i) for i in range(len(bank)) if i not in set(duds)],
        "n": len(bank),
        "duds": len(duds),
        "counts": [(v, n) for v, n in counts.items() if n],
        "findings": [_finding(f) for f in findings],
        "judged": any(f.planted for f in findings),
        "suggested": "No R is suggested" if suggested.radius is None else f"Suggested R: {suggested.radius:.3g} {unit}",
        "suggested_reason": suggested.reason,
        "calibrated": "none" if sweep.auto_radius is None else f"{sweep.auto_radius:.3g} {unit}",
        "sweep_rows": [
            [f"{r.radius:g}", *(f"{v:.2f}" for v in (r.found.diversity, r.control.diversity)),
             *(f"{v:.1f}" for v in (r.found.coherence, r.control.coherence)),
             f"{r.found.refusal:.0%}", f"{r.found.dud:.0%}", f"{r.control.dud:.0%}"]
            for r in sweep.rows
        ],
        "sweep_vectors": sweep.config.n_vectors,
        "unit": unit,
        "rules": {"share": f"{FOUND_SHARE:.0%}", "ratio": f"{CONTROL_RATIO:g}", "coherent": f"{COHERENT:g}"},
    }  # fmt: skip


def _acting(bank: VectorBank, index: int) -> list[str]:
    """Cells of one vector that is no dud: number, label, best scale, usable scales, coherence, change (random)."""
    note = bank.annotations[index]
    metrics = note.metrics or ScaleRow()
    control = metrics.control or ScaleRow()
    usable = ", ".join(_range(pair) for pair in note.scale_ranges) or "-"
    change = _cell(metrics.change, ".2f")
    if metrics.change is not None:
        change += f" ({_cell(control.change, '.2f')})"
    return [str(index), bank.label(index), _cell(note.scale), usable, _cell(metrics.coherence, ".1f"), change]


def _cell(value: float | None, form: str = "g") -> str:
    return "-" if value is None else format(value, form)


def _range(pair: tuple[float, float] | None) -> str:
    if pair is None:
        return "-"
    return f"{pair[0]:g}" if pair[0] == pair[1] else f"{pair[0]:g} to {pair[1]:g}"


def _finding(f: Finding) -> dict[str, Any]:
    """The finding's own texts, its cells of the summary table, and what its section shows."""
    tried = f.vector is not None
    works = _range(f.works)
    size = "-" if f.published_scale is None else f"{'-' if (f.scale or 0) < 0 else ''}{f.published_scale:g}"
    judged = "" if f.judged is None else f"{f.control_judged or 0:.0%}"
    chosen = ""
    if f.vector is not None and f.scale is not None:
        among = f", among vectors {', '.join(map(str, f.candidates))}" if len(f.candidates) > 1 else ""
        chosen = f"Vector {f.vector} × {f.scale:g}{among}; works from {works}."
        if f.published_share is not None:
            chosen += f" At the published size, × {size}: {f.published_share:.0%}."
        if f.judged is not None:
            chosen += f" The judge sees the planted mode in {f.judged:.0%} of these answers (random: {judged})."
    return vars(f) | {
        "vector": f"{f.vector}: {f.label}" if tried else "-",
        "scale": _cell(f.scale),
        "works": works,
        "share": f"{f.share:.0%} of {f.n}" if tried else "-",
        "control": f"{f.control_share:.0%}" if tried else "-",
        "anywhere": "-" if f.control_scale is None else f"{f.control_anywhere:.0%}",
        "published": size if f.published_share is None else f"{size}: {f.published_share:.0%}",
        "judged": "-" if f.judged is None else f"{f.judged:.0%} ({judged})",
        "chosen": chosen,
        "answers": list(map(_answer, f.answers)),
    }


def _answer(a: Answer) -> dict[str, Any]:
    names, texts = ("unsteered", "steered", "random vector"), (a.unsteered, a.steered, a.control)
    columns = zip(names, texts, a.modes or ("", "", ""), strict=True)
    outcome = "shown" if a.shown else "not shown"
    if not a.counts:
        outcome = "does not count: the unsteered answer leaves no room"
    return {
        "prompt": a.prompt,
        "outcome": "" if a.steered is None else outcome,
        "columns": [column for column in columns if column[1] is not None],
    }
