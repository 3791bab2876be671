"""`melbo show`: what a bank holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from melbo.annotation.entry import as_list, number_of, ranges_of, tags_of_entry, text_of
from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import plain

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
    measured = [i for i, note in enumerate(bank.annotations) if isinstance(note.get("metrics"), Mapping)]
    if measured:
        duds = sum(bank.annotations[i].get("dud") is True for i in measured)
        lines.append(f"annotated: {len(measured)} vectors, {duds} of them duds")
        lines += _calibration(bank.details.get("annotation"))
    heads = ["index", "label", "objective", *(["scale", "usable", "coherence", "tags"] if measured else [])]
    rows = [heads, *(_cells(bank, i)[: len(heads)] for i in range(len(bank)))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(heads))]
    left = {"label", "tags"}
    aligned = [
        "  ".join(c.ljust(w) if h in left else c.rjust(w) for c, w, h in zip(row, widths, heads, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *aligned])


def _calibration(settings: object) -> list[str]:
    """What coherence is measured on, where the annotation's settings say it."""
    scale = settings.get("coherence_scale") if isinstance(settings, Mapping) else None
    good, bad = number_of(scale, "good_nll"), number_of(scale, "bad_nll")
    return [] if good is None or bad is None else [f"coherence: 10 up to {good:.3g} nats a token, 0 from {bad:.3g}"]


def _cells(bank: VectorBank, index: int) -> list[str]:
    note = bank.annotations[index] if bank.annotations else {}
    scale = number_of(note, "scale")
    coherence = _coherence(note, scale)
    acts = note.get("dud") is not True
    return [
        str(index),
        _cut(bank.label(index)),
        f"{float(bank.objective[index]):.4g}",
        f"{scale:g}" if acts and scale is not None else "-",
        _ranges(note),
        f"{coherence:.1f}" if acts and coherence is not None else "-",
        _cut(" ".join(tags_of_entry(note))),
    ]


def _coherence(note: Mapping[str, Any], scale: float | None) -> float | None:
    """At this scale; a curator's own scale may not have been measured."""
    measured = [note.get("metrics"), *as_list(note.get("by_scale"))]
    own = [row for row in measured if number_of(row, "scale") in (scale, None)]
    return next((c for row in own if (c := number_of(row, "coherence")) is not None), None)


def _ranges(note: Mapping[str, Any]) -> str:
    return ", ".join(f"{lo:g}" if lo == hi else f"{lo:g} to {hi:g}" for lo, hi in ranges_of(note)) or "-"


def page(bank: VectorBank, index: int) -> str:
    """All that is known of one vector, for a terminal.

    Raises:
        BankError: there is no such vector.
    """
    bank.vector(index)
    note = bank.annotations[index] if bank.annotations else {}
    lines = [f"vector {index}: {_line(bank.label(index))}"]
    lines.append(f"objective {float(bank.objective[index]):.4g}, norm {bank.radius:.4g} at layer {bank.layer}")
    facts = {"tags": ", ".join(tags_of_entry(note)), "tried": text_of(note, "tried"), "note": text_of(note, "note")}
    facts["usable scales"] = _ranges(note) if note.get("scale_ranges") else ""
    lines += [f"{name}: {_line(text)}" for name, text in facts.items() if text]
    rows = [row for row in as_list(note.get("by_scale")) if isinstance(row, Mapping)]
    if rows:
        names = ("scale", "coherence", "refusal", "change", "same", "degenerate", "acts")
        control = note["metrics"].get("control") if isinstance(note.get("metrics"), Mapping) else None
        marked = [("", row) for row in rows] + ([("random vectors", control)] if isinstance(control, Mapping) else [])
        lines += ["", "  ".join(f"{name:>10}" for name in names)]
        lines += ["  ".join([*(_number(row, name) for name in names), mark]).rstrip() for mark, row in marked]
    lines += _side_effects(note.get("metrics"))
    for example in as_list(note.get("examples")):
        if isinstance(example, Mapping):
            scale = number_of(example, "scale")
            lines += [
                "",
                f"--- {_line(text_of(example, 'prompt'))} (scale {'?' if scale is None else f'{scale:g}'}) ---",
            ]
            unsteered = text_of(example, "unsteered") or text_of(note, "unsteered")
            lines += [f"unsteered: {plain(unsteered)}", f"steered:   {plain(text_of(example, 'text'))}"]
            lines += _scores(example.get("llm"))
    return "\n".join(lines)


def _scores(scores: object) -> list[str]:
    """A language model's scores of an example, where it has any."""
    found = {name: number_of(scores, name) for name in ("coherence", "difference", "refusal")}
    said = [f"{name} {score:g}" for name, score in found.items() if score is not None]
    return [f"judge:     {', '.join(said)} (of 10)"] if said else []


def _side_effects(metrics: object) -> list[str]:
    """One line on the metrics' scale, where they were measured."""
    control = metrics.get("control") if isinstance(metrics, Mapping) else None
    pairs = {
        what: (number_of(metrics, key), number_of(control, key))
        for key, what in (
            ("kl", "first tokens' KL"),
            ("off_target", "innocuous prompts changed"),
            ("off_target_kl", "KL there"),
        )
    }
    said = [f"{what} {a:.3g} ({b:.3g})" for what, (a, b) in pairs.items() if a is not None and b is not None]
    scale = number_of(metrics, "scale")
    return ["", f"at scale {scale:g} (random vectors): {', '.join(said)}"] if said and scale is not None else []


def _number(row: Mapping[str, Any], name: str) -> str:
    value = number_of(row, name)
    return f"{'-' if value is None else f'{value:.4g}':>10}"


def _line(text: str) -> str:
    return " ".join(plain(text).split())


def _cut(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."
