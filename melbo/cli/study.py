"""`melbo study replication`: the replication's experiments on a model, as a report."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import ANYWHERE, Embedder, Where
from melbo.cli.common import plain, resumable, say, stages
from melbo.cli.defaults import MODEL, MODEL_HELP
from melbo.cli.options import NONE, Fields
from melbo.config import DiscoveryConfig
from melbo.errors import ConfigError
from melbo.measure.embeddings import load_embedder
from melbo.models.packaged import canonical
from melbo.organism.judge import judge_for
from melbo.organism.study import PRESETS, find_preset
from melbo.radius_sweep.config import parse_radii
from melbo.reports.replication.finding import Finding
from melbo.reports.replication.presets import Preset, StudyConfig
from melbo.reports.replication.report import MARKDOWN
from melbo.reports.replication.run import Study
from melbo.runs.figures import check_drawable

_NAMES = ", ".join(PRESETS)
TRAINING = Fields(("n_vectors", "steps", "seed"), of=DiscoveryConfig, whose="the preset's, for a new bank")
TRYING = Fields(
    ("sweep_vectors", "scales", "candidates", "max_new_tokens"),
    names={"scales": "scale"},
    of=StudyConfig,
    whose="the preset's",
)


def replication(
    out: Annotated[Path, typer.Option(help="Folder for the bank, the sweep, the findings and the report.")],
    model: Annotated[
        str | None, typer.Option(help=f"{MODEL_HELP} Default: the bank's, the preset's, or the embedded one.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Settings: {_NAMES}. Default: the one made for the model.")
    ] = None,
    bank: Annotated[
        str | None,
        typer.Option(help='Bank to study: folder, or "user/bank". Default: the shipped one; "new" trains one.'),
    ] = None,
    training: Annotated[Mapping[str, Any], TRAINING] = NONE,
    radii: Annotated[
        str | None, typer.Option(help='R of the sweep: "first:last:step", a list "0.5,0.7,1", or "wide": up to 32.')
    ] = None,
    trying: Annotated[Mapping[str, Any], TRYING] = NONE,
    embedder: Embedder = None,
    where: Where = ANYWHERE,
) -> None:
    """Look for what the replication found: non-refusal, refusal by subtraction, languages, mental health, the game.

    Writes report.html and report.md. Stopped or killed, the same command goes on from what is done.
    """
    check_drawable(".png")
    held = None if bank in (None, "new") else VectorBank.from_pretrained(str(bank))
    name, chosen = find_preset(preset, model or (held.base_model.id if held else None))
    wanted = canonical(model or (held.base_model.id if held else None) or chosen.model or MODEL)
    if bank is None:
        held = shipped_bank(chosen, wanted)
    if held is not None and training:
        raise ConfigError("--n-vectors, --steps and --seed are of a new bank; add --bank new, or leave them out.")
    config = changed(chosen.config, training, trying, radii)
    loaded = where.load(wanted) if held is None else where.load_for(held, wanted)
    say(f"preset {name}, model {plain(loaded.name)}")
    with stages() as show, resumable(out):
        own = load_embedder(embedder) if embedder else None
        study = Study(loaded, config, out, held, own, show, judge_for(loaded))
        page = study.report()
    say(f"{plain(table(study.findings))}\nsaved to {plain(page)} and {MARKDOWN}")


def changed(
    config: StudyConfig, training: Mapping[str, Any], trying: Mapping[str, Any], radii: str | None
) -> StudyConfig:
    """The preset's settings with those that were given; the longest answer is the sweep's too."""
    given = {**trying, "discovery": replace(config.discovery, **training)}
    if "max_new_tokens" in trying:
        given["sweep_tokens"] = trying["max_new_tokens"]
    if radii is not None:
        given["radii"] = parse_radii(radii)
    return replace(config, **given)


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
