"""`melbo inspect sae` and `melbo inspect train-sae`: a bank's vectors beside an SAE's features; the organism's SAE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from melbo.bank.choose import chosen_vectors
from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import Blocks, Device, Dtype, plain, resumable, say
from melbo.config import MAX_SEED
from melbo.errors import SaeError
from melbo.inspect.sae.compare import Parts
from melbo.inspect.sae.dictionary import ENCODER_WARNING
from melbo.inspect.sae.files import load_sae, save_sae
from melbo.inspect.sae.report import SaeReport, sae_report
from melbo.inspect.sae.train import SaeConfig
from melbo.models.load import LoadedModel, load_model
from melbo.organism.inputs import ORGANISM, find_corpus
from melbo.organism.mode_agreement import organism_sae
from melbo.runs.progress import on_bar

_S = SaeConfig()
NoDuds = Annotated[bool, typer.Option("--no-duds", help="Leave out the vectors that the annotations call duds.")]


def load_both(bank: Path, dtype: str | None, device: str | None, blocks: str | None) -> tuple[LoadedModel, VectorBank]:
    """The model that a bank names, and the bank."""
    found = VectorBank.load(bank)
    base = found.base_model
    local = (base.revision or "").startswith("sha256:")
    revision = None if local else base.revision
    return load_model(base.id, revision=revision, dtype=dtype, device=device, blocks=blocks), found


def sae(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    source: Annotated[str, typer.Option("--sae", help='Folder, Hub repository, or "organism".')] = ORGANISM,
    folder: Annotated[str, typer.Option("--sae-folder", help='Folder within it, such as "layers.10".')] = "",
    other_model: Annotated[bool, typer.Option("--other-model", help="Allow an SAE of another model's name.")] = False,
    vector: Annotated[
        list[int] | None, typer.Option(help="May be given many times. Default: 0 to 7, or all without duds.")
    ] = None,
    no_duds: NoDuds = False,
    scale: Annotated[float, typer.Option(help="Times the vector; -1 turns it around.")] = 1.0,
    k: Annotated[int, typer.Option(help="Features per vector.", min=1)] = 8,
    corpus: Annotated[str, typer.Option(help='For examples: text or .jsonl file, hf:OWNER/NAME, "organism".')] = "",
    limit: Annotated[int, typer.Option(help="Most documents of the corpus.", min=1)] = 1000,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Show which of a sparse autoencoder's features make up a bank's vectors."""
    loaded, vectors = load_both(bank, dtype, device, blocks)
    found = load_sae(source, folder, loaded, vectors.layer, other_model)
    chosen = chosen_vectors(vectors, vector or (None if no_duds else range(min(8, len(vectors)))), not no_duds)
    texts = find_corpus(corpus, limit=limit) if corpus else None
    report = sae_report(loaded, vectors, found, public_name(source, folder), chosen, scale, k, texts)
    if out is not None:
        report.save(out)
    for place, index in enumerate(chosen):
        say(plain(f"{index}: {vectors.label(index)}\n{_lines(report, place)}"))
    say(ENCODER_WARNING)


def public_name(source: str, folder: str) -> str:
    """Where an SAE is from, for a file that others read: a repository's name, or a local folder's last name."""
    name = Path(source).resolve().name if Path(source).exists() else source
    return f"{name}/{folder}" if folder else name


def _lines(report: SaeReport, place: int) -> str:
    def row(name: str, parts: Parts) -> str:
        cells = [f"{f}{_mark(report, f)} {w:.3g}" for f, w in zip(parts.features, parts.weights, strict=True)]
        return f"  {name:30}" + ", ".join(cells)

    def explained(parts: Parts, random: tuple[float, ...]) -> str:
        return f"{parts.explained[-1]:.0%}, random {random[-1]:.0%}" if parts.explained else "nothing"

    signed, positive = report.decomposition[place], report.positive[place]
    lines = [
        row(f"nearest (cosine), random {report.random_nearest:.2g}", report.nearest[place]),
        row(f"sum ({explained(signed, report.random)})", signed),
        row(f"sum >= 0 ({explained(positive, report.random_positive)})", positive),
        row("changed by steering", report.changed[place]),
    ]
    notes = [(f, report.features[f]) for f in positive.features[:3] if f in report.features]
    lines += [f"    {f}: {' '.join(note.examples[0].split())}" for f, note in notes if note.examples]
    return "\n".join(lines)


def _mark(report: SaeReport, feature: int) -> str:
    note = report.features.get(feature)
    return f" [{note.mark}]" if note is not None and note.mark else ""


def train_organism_sae(
    out: Annotated[Path, typer.Option(help="Folder for the SAE.")],
    layer: Annotated[int, typer.Option(help="Block whose output it reads.", min=0)] = 2,
    d_sae: Annotated[int, typer.Option(help="Features.")] = _S.d_sae,
    k: Annotated[int, typer.Option(help="Features active per token.")] = _S.k,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = _S.steps,
    seed: Annotated[int, typer.Option(help="Seed of the starting directions.", min=0, max=MAX_SEED // 2)] = _S.seed,
) -> None:
    """Train a TopK SAE for the embedded model, measure it on held-out chats, and save it in SAELens's layout."""
    if out.exists() and not out.is_dir():
        raise SaeError(f"{out} is a file; choose a folder.")
    config = SaeConfig(d_sae=d_sae, k=k, steps=steps, seed=seed)
    loaded = load_model(ORGANISM)
    checkpoint = out.absolute().with_name(f".{out.absolute().name}.checkpoint.safetensors")
    say("reading activations")
    with tqdm(total=steps, unit="step", leave=False, disable=None) as bar, resumable(checkpoint):
        made, quality = organism_sae(loaded, layer, config, on_bar(bar, "unexplained"), checkpoint)
    save_sae(made, out)
    checkpoint.unlink(missing_ok=True)
    say(
        f"explained variance {quality.explained_variance:.3f}, L0 {quality.l0:.1f}, dead {quality.dead_share:.1%} on "
        f"{quality.activations} held-out activations\nsaved to {out}"
    )
