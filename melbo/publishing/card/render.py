"""The model card of a bank, rendered from what the bank holds (model_card.md.jinja): nothing in it is written by hand.

All text from users and models is escaped (melbo/runs/escape.py). The same bank gives the same card.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from melbo.bank.annotation import Annotation, Example, ScaleRow
from melbo.bank.save import CARD_MARK
from melbo.bank.vector_bank import VectorBank
from melbo.hub.client import check_repo
from melbo.inspect.stored import stored_sweep
from melbo.publishing.card.metadata import MEASURES, check_card, hub_id, measured, metadata
from melbo.publishing.card.responses import responses_view, sweep_results, sweep_view
from melbo.runs.escape import inline, listed, quote, shown

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
PLACEHOLDER = "user/bank"
"""Repository in the card's code where none is named."""
MAX_DESCRIBED = 40
"""Vectors with an example; further labelled ones are in the table only."""
MAX_PROMPTS = 10
"""Training prompts that are shown."""
MAX_TAGS = 6
"""Tags of a vector that are shown."""


def render_card(
    bank: VectorBank, *, repo: str | None = None, license: str | None = None, folder: Path | None = None
) -> str:
    """The card as Markdown with its metadata.

    Args:
        repo: repository that its code loads from.
        license: the Hub's licence identifier; None: apache-2.0.
        folder: where sweep.json, sweep.png and the results of `melbo inspect` lie, if there are any.

    Raises:
        HubError: the licence or the repository is none of the Hub's.
    """
    if repo is not None:
        check_repo(repo)
    title = repo.split("/")[1] if repo else f"MELBO steering vectors for {bank.base_model.id}"
    sweep = None if folder is None else stored_sweep(bank, folder)
    card = ModelCard.from_template(
        metadata(bank, title[:96], license, sweep_results(sweep, bank)),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        **_view(bank, title, repo or PLACEHOLDER),
        sweep=sweep_view(sweep, folder),
        responses=responses_view(bank, _best_signs(bank), folder),
    )
    text = str(card)
    check_card(text)
    return text


def _view(bank: VectorBank, title: str, repo: str) -> dict[str, Any]:
    """The template's values: numbers, and texts that are escaped."""
    labelled = [i for i in range(len(bank)) if _labelled(bank, i)]
    first = labelled[0] if labelled else 0
    duds = [note for note in bank.annotations if note.is_dud]
    return {
        "mark": CARD_MARK,
        "title": inline(title, 200),
        "repo": repo,
        "model": inline(bank.base_model.id, 200),
        "model_link": hub_id(bank.base_model),
        "revision": inline(bank.base_model.revision),
        "bank": bank,
        "radius": f"{bank.radius:.4g}",
        "relative_radius": f"{bank.radius / bank.mean_residual_norm:.3g}",
        "prompts": [[(inline(m["role"]), quote(m["content"])) for m in p] for p in bank.prompts[:MAX_PROMPTS]],
        "more_prompts": max(0, len(bank.prompts) - MAX_PROMPTS),
        "table": _table(bank, labelled),
        "described": [d for i in labelled[:MAX_DESCRIBED] if (d := _described(bank, i))],
        "unlabelled": len(bank) - len(labelled),
        "duds": len(duds),
        "first": first,
        "first_scale": f"{_scale(bank.annotation(first)):g}",
        "config": json.dumps(bank.config.to_dict(), indent=2),
        "versions": ", ".join(f"{inline(k)} {inline(v)}" for k, v in sorted(bank.versions.items())),
        "created": inline(bank.created),
        "origin": _origin(bank, repo),
    }


def _labelled(bank: VectorBank, index: int) -> bool:
    note = bank.annotation(index)
    return bool(inline(note.label)) and not note.is_dud


def _scale(held: Annotation | ScaleRow | Example) -> float:
    return 1.0 if held.scale is None else held.scale


def _best_signs(bank: VectorBank) -> list[tuple[int, int]]:
    """Numbers of the labelled vectors, as many as are described, each with the sign of its best scale."""
    labelled = [i for i in range(len(bank)) if _labelled(bank, i)][:MAX_DESCRIBED]
    return [(i, -1 if _scale(bank.annotation(i)) < 0 else 1) for i in labelled]


def _table(bank: VectorBank, indices: list[int]) -> list[list[str]]:
    """Head and rows, without the columns that hold nothing; [] where there is no row."""
    rows = [_row(bank, index) for index in indices]
    head = ["vector", "label", "best scale", "usable scales", *MEASURES.values(), "tags"]
    kept = [i for i in range(len(head)) if any(row[i] not in ("-", "") for row in rows)]
    return [[cells[i] for i in kept] for cells in ([head, *rows] if rows else [])]


def _row(bank: VectorBank, index: int) -> list[str]:
    """Cells: number, label, best scale that was measured, usable range, metrics (control), tags; "-": not known."""
    note = bank.annotation(index)
    tried = note if note.metrics is None or note.metrics.scale is None else note.metrics  # the scale that was measured
    cells = [str(index), inline(note.label, 60), f"{_scale(tried):g}"]
    cells.append(", ".join(f"{shown(a)} to {shown(b)}" for a, b in note.scale_ranges) or "-")
    for name in MEASURES:
        steered, control = measured(note, name)
        cells.append("-" if steered is None else f"{shown(steered)} ({shown(control)})")
    cells.append(", ".join(inline(tag, 40) for tag in note.tags[:MAX_TAGS]))
    return cells


def _described(bank: VectorBank, index: int) -> dict[str, str] | None:
    """Label, note and the example whose scale is nearest to the best one; None without an example."""
    note = bank.annotation(index)
    examples = [e for e in note.examples if inline(e.text)]
    if not examples:
        return None
    best = min(examples, key=lambda e: abs(_scale(e) - _scale(note)))
    return {
        "heading": f"{index}: {inline(note.label, 60)}",
        "note": inline(note.note, 400),
        "prompt": quote(best.prompt, 300),
        "scale": f"{_scale(best):g}",
        "text": quote(best.text),
        "unsteered": quote(best.unsteered or note.unsteered),
    }


def _origin(bank: VectorBank, repo: str) -> list[str]:
    """Sentences on where the vectors came from, where that is not `repo`."""
    said = []
    source = bank.source
    if source is not None and source.repo not in (None, repo):
        said.append(f"Copied from {inline(source.repo)} at commit {inline(source.revision) or 'unknown'}.")
    selected = bank.details.get("selected_from")
    if isinstance(selected, dict) and isinstance(selected.get("indices"), list):
        numbers = [i for i in selected["indices"] if type(i) is int][:200]
        where = inline(selected.get("bank")) or "a bank that was not saved"
        commit = f" at commit {inline(selected.get('revision'))}" if selected.get("revision") else ""
        said.append(f"Selected from {where}{commit}: its vectors {', '.join(map(str, numbers))}.")
    for part in listed(bank.details.get("merged_from")):
        if isinstance(part, dict):
            name = inline(part.get("bank")) or "a bank that was not saved"
            said.append(f"{shown(part.get('n_vectors'))} vectors from {name} (method {inline(part.get('method'))}).")
    return said
