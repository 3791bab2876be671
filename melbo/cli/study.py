"""`melbo study replication`: the replication's experiments on a model, as a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import Blocks, Device, Dtype, guarded, plain, resumable, say, stages
from melbo.config import MAX_SEED
from melbo.errors import ConfigError
from melbo.inspect.layers.heat_map import check_drawable
from melbo.measure.embeddings import load_embedder
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from melbo.organism.judge import judge_for
from melbo.organism.study import PRESETS, find_preset
from melbo.radius_sweep.config import parse_radii
from melbo.reports.replication.finding import Finding
from melbo.reports.replication.presets import Preset, StudyConfig
from melbo.reports.replication.report import MARKDOWN
from melbo.reports.replication.run import Study

_NAMES = ", ".join(PRESETS)
study_app = typer.Typer(no_args_is_help=True, help="Run published experiments on a model, as a report.")


def replication(
    out: Annotated[Path, typer.Option(help="Folder for the bank, the sweep, the findings and the report.")],
    model: Annotated[
        str | None, typer.Option(help='Hub id, folder, or "organism". Default: the preset\'s, else "organism".')
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Settings: {_NAMES}. Default: the one made for the model.")
    ] = None,
    bank: Annotated[
        str | None,
        typer.Option(help='Bank to study: folder, or "user/bank". Default: the shipped one; "new" trains one.'),
    ] = None,
    n_vectors: Annotated[int | None, typer.Option(help="Vectors of a new bank.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of a new bank.", min=0)] = None,
    seed: Annotated[int | None, typer.Option(help="Of a new bank's starts.", min=0, max=MAX_SEED)] = None,
    radii: Annotated[
        str | None, typer.Option(help='R of the sweep: "first:last:step", a list "0.5,0.7,1", or "wide": up to 32.')
    ] = None,
    sweep_vectors: Annotated[int | None, typer.Option(help="Vectors at each R of the sweep.", min=2)] = None,
    scale: Annotated[list[float] | None, typer.Option(help="Size to try, both signs. May be given many times.")] = None,
    candidates: Annotated[int | None, typer.Option(help="Most vectors that an experiment tries.", min=1)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.", min=1)] = None,
    embedder: Annotated[str | None, typer.Option(help="Sentence-embedding model. Default: all-MiniLM-L6-v2.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Look for what the replication found: non-refusal, refusal by subtraction, languages, mental health, the game.

    Writes report.html and report.md. Stopped or killed, the same command goes on from what is done.
    """
    check_drawable(".png")
    held = None if bank in (None, "new") else VectorBank.from_pretrained(str(bank))
    name, chosen = find_preset(preset, model or (held.base_model.id if held else None))
    wanted = model or (held.base_model.id if held else None) or chosen.model or ORGANISM
    if bank is None:
        held = shipped_bank(chosen, wanted)
    if held is not None and (n_vectors, steps, seed) != (None, None, None):
        raise ConfigError("--n-vectors, --steps and --seed are of a new bank; add --bank new, or leave them out.")
    config = changed(chosen.config, n_vectors, steps, seed, radii, sweep_vectors, scale, candidates, max_new_tokens)
    revision = held.base_model.revision if held and wanted == held.base_model.id else None
    loaded = load_model(wanted, revision=revision, dtype=dtype, device=device, blocks=blocks)
    say(f"preset {name}, model {plain(loaded.name)}")
    with stages() as show, resumable(out):
        own = load_embedder(embedder) if embedder else None
        study = Study(loaded, config, out, held, own, show, judge_for(loaded))
        page = study.report()
    say(f"{plain(table(study.findings))}\nsaved to {plain(page)} and {MARKDOWN}")


def changed(
    config: StudyConfig,
    n_vectors: int | None,
    steps: int | None,
    seed: int | None,
    radii: str | None,
    sweep_vectors: int | None,
    scales: list[float] | None,
    candidates: int | None,
    max_new_tokens: int | None,
) -> StudyConfig:
    """The preset's settings with those that were given."""
    bank: dict[str, Any] = {"n_vectors": n_vectors, "steps": steps, "seed": seed}
    discovery = replace(config.discovery, **{k: v for k, v in bank.items() if v is not None})
    given: dict[str, Any] = {
        "radii": None if radii is None else parse_radii(radii),
        "sweep_vectors": sweep_vectors,
        "scales": tuple(scales) if scales else None,
        "candidates": candidates,
        "max_new_tokens": max_new_tokens,
        "sweep_tokens": max_new_tokens,
    }
    return replace(config, discovery=discovery, **{k: v for k, v in given.items() if v is not None})


def shipped_bank(preset: Preset, model: str) -> VectorBank | None:
    """The preset's bank, where it is at hand and the preset's own model is asked for."""
    folder = None if preset.bank is None else Path(__file__).parents[2] / preset.bank
    return VectorBank.load(folder) if folder is not None and folder.is_dir() and model == preset.model else None


def table(findings: tuple[Finding, ...]) -> str:
    """Text for a terminal: one line for each experiment."""
    head = ("looked for", "result", "vector", "scale", "share", "random")
    rows = [head]
    for f in findings:
        cells = ("-",) * 4
        if f.scale is not None:
            label = " ".join((f.label or "").split())
            cells = (f"{f.vector}: {label}", f"{f.scale:g}", f"{f.share:.0%} of {f.n}", f"{f.control_share:.0%}")
        rows.append((f.title, f.verdict, *cells))
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


study_app.command()(guarded(replication))


@study_app.callback()
def _group() -> None:
    """Keeps `replication` a command of its own while it is the only one."""
