"""`melbo show`: what a bank holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.annotation import Annotation, LlmScores, ScaleRow
from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import plain
from melbo.runs.parse import parse_what_fits

_WIDEST = 60
"""Characters of a table's text column."""


def show(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    vector: Annotated[int | None, typer.Option(help="Index: print this vector's page, with examples.")] = None,
) -> None:
    """Print a bank's settings and its vectors, or one vector's page."""
    held = VectorBank.load(bank)
    typer.echo(table(held) if vector is None else page(held, vector))


def table(bank: VectorBank) -> str:
    """Head lines and one line per vector: index, label, objective, and what was annotated."""
    lines = [
        f"{len(bank)} vectors ({bank.config.method}) for {plain(bank.base_model.id)}, "
        f"source layer {bank.config.source_layer}, target layer {bank.config.target_layer}, "
        f"R = {bank.radius:.4g} ({bank.radius / bank.mean_residual_norm:.3g} x the mean residual norm)",
        *(f"prompt: {_line(p[-1]['content'])}" for p in bank.prompts if p),
    ]
    measured = [note for note in bank.annotations if note.metrics is not None]
    if measured:
        duds = sum(note.is_dud for note in measured)
        lines.append(f"annotated: {len(measured)} vectors, {duds} of them duds")
        lines += _calibration(bank.details.get("annotation"))
    heads = [
        "index",
        "label",
        "objective",
        *(["scale", "shown", "random", "usable", "coherence", "tags"] if measured else []),
    ]
    rows = [heads, *(_cells(bank, i)[: len(heads)] for i in range(len(bank)))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(heads))]
    left = {"label", "tags"}
    aligned = [
        "  ".join(c.ljust(w) if h in left else c.rjust(w) for c, w, h in zip(row, widths, heads, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *aligned])


@dataclass(frozen=True)
class _Calibration:
    good_nll: float | None = None
    bad_nll: float | None = None


def _calibration(settings: object) -> list[str]:
    """What coherence is measured on, where the annotation's settings say it."""
    scale = settings.get("coherence_scale") if isinstance(settings, Mapping) else None
    known = parse_what_fits(_Calibration, scale)
    if known.good_nll is None or known.bad_nll is None:
        return []
    return [f"coherence: 10 up to {known.good_nll:.3g} nats a token, 0 from {known.bad_nll:.3g}"]


def _cells(bank: VectorBank, index: int) -> list[str]:
    note = bank.annotation(index)
    coherence = _coherence(note)
    return [
        str(index),
        _cut(bank.label(index)),
        f"{float(bank.objective[index]):.4g}",
        "-" if note.is_dud or note.scale is None else f"{note.scale:.3g}",
        *_evidence(note),
        _ranges(note),
        "-" if note.is_dud or coherence is None else f"{coherence:.1f}",
        _cut(" ".join(note.tags)),
    ]


def _evidence(note: Annotation) -> tuple[str, str]:
    """The first trait's prompts, "8 of 10", and the share of random vectors."""
    first = next((t for t in note.traits if t.of), None)
    if first is None:
        return "-", "-"
    return f"{first.shown or 0} of {first.of}", f"{first.random or 0:.0%}"


def _coherence(note: Annotation) -> float | None:
    """At the best scale; a curator's own scale may not have been measured."""
    measured = [row for row in (note.metrics, *note.by_scale) if row is not None and row.scale in (note.scale, None)]
    return next((row.coherence for row in measured if row.coherence is not None), None)


def _ranges(note: Annotation) -> str:
    return ", ".join(f"{lo:.3g}" if lo == hi else f"{lo:.3g} to {hi:.3g}" for lo, hi in note.scale_ranges) or "-"


def page(bank: VectorBank, index: int) -> str:
    """All that is known of one vector, for a terminal.

    Raises:
        BankError: there is no such vector.
    """
    bank.vector(index)
    note = bank.annotation(index)
    lines = [f"vector {index}: {_line(bank.label(index))}"]
    lines.append(f"objective {float(bank.objective[index]):.4g}, norm {bank.radius:.4g} at layer {bank.layer}")
    facts = {"tags": ", ".join(note.tags), "tried": note.tried, "note": note.note}
    facts["usable scales"] = _ranges(note) if note.scale_ranges else ""
    lines += [f"{name}: {_line(text)}" for name, text in facts.items() if text]
    lines += map(_line, _shares(note))
    if note.by_scale:
        names = ("scale", "coherence", "refusal", "change", "same", "degenerate", "acts")
        control = note.metrics.control if note.metrics else None
        marked = [*(("", row) for row in note.by_scale), *([("random vectors", control)] if control else [])]
        lines += ["", "  ".join(f"{name:>10}" for name in names)]
        lines += ["  ".join([*(_number(row, name) for name in names), mark]).rstrip() for mark, row in marked]
    for example in note.examples:
        scale = "?" if example.scale is None else f"{example.scale:g}"
        lines += ["", f"--- {_line(example.prompt)} (scale {scale}) ---"]
        unsteered = example.unsteered.strip() or note.unsteered.strip()
        lines += [f"unsteered: {plain(unsteered)}", f"steered:   {plain(example.text.strip())}"]
        lines += _scores(example.llm or LlmScores())
    return "\n".join(lines)


def _scores(scores: LlmScores) -> list[str]:
    """A language model's scores of an example, where it has any."""
    found = {name: getattr(scores, name) for name in ("coherence", "difference", "refusal")}
    said = [f"{name} {score:g}" for name, score in found.items() if score is not None]
    return [f"judge:     {', '.join(said)} (of 10)"] if said else []


def _shares(note: Annotation) -> list[str]:
    """How often each trait repeats on prompts that it was not chosen on, one line each."""
    return [
        f"{t.trait}: on {t.shown} of {t.of} other prompts at scale {t.scale:g}, random vectors {t.random:.0%}"
        for t in note.traits
        if t.of and t.shown is not None and t.scale is not None and t.random is not None
    ]


def _number(row: ScaleRow, name: str) -> str:
    value = getattr(row, name)
    return f"{'-' if value is None else f'{value:.4g}':>10}"


def _line(text: str) -> str:
    return " ".join(plain(text).split())


def _cut(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."
