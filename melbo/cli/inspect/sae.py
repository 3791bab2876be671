"""`melbo inspect sae`: a bank's vectors beside an SAE's features."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.select import chosen_vectors
from melbo.cli.arguments import ANYWHERE, Bank, NoDuds, OtherModel, Result, SaeFolder, Where
from melbo.cli.common import plain, say
from melbo.cli.defaults import CORPUS_HELP, SAE, SAE_HELP
from melbo.cli.options import default_of
from melbo.inspect.sae.compare import Parts
from melbo.inspect.sae.dictionary import ENCODER_WARNING
from melbo.inspect.sae.files import load_sae
from melbo.inspect.sae.report import SaeReport, sae_report
from melbo.organism.inputs import find_corpus


def sae(
    bank: Bank,
    source: Annotated[str, typer.Option("--sae", help=SAE_HELP)] = SAE,
    folder: SaeFolder = "",
    other_model: OtherModel = False,
    vector: Annotated[
        list[int] | None, typer.Option(help="May be given many times. Default: 0 to 7, or all without duds.")
    ] = None,
    no_duds: NoDuds = False,
    scale: Annotated[float, typer.Option(help="Times the vector; -1 turns it around.")] = default_of(
        sae_report, "scale"
    ),
    k: Annotated[int, typer.Option(help="Features per vector.", min=1)] = default_of(sae_report, "k"),
    corpus: Annotated[str, typer.Option(help=f"Where examples are from. {CORPUS_HELP}")] = "",
    limit: Annotated[int, typer.Option(help="Most documents of the corpus.", min=1)] = 1000,
    out: Result = None,
    where: Where = ANYWHERE,
) -> None:
    """Show which of a sparse autoencoder's features make up a bank's vectors."""
    loaded, vectors = where.load_both(bank)
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
