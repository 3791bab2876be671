"""`melbo inspect`: what a bank's vectors are: activating examples, logit lens, geometry, the model's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from melbo.bank.choose import chosen_vectors
from melbo.cli.common import Blocks, Device, Dtype, guarded, plain, resumable, say
from melbo.cli.inspect_all import inspect_all, read_contrasts
from melbo.cli.sae import NoDuds, load_both, sae, train_organism_sae
from melbo.errors import ConfigError
from melbo.inspect.geometry.plot import plot as plot_geometry
from melbo.inspect.geometry.similarity import measure_geometry
from melbo.inspect.layers.heat_map import check_drawable
from melbo.inspect.lens.logit_lens import logit_lens, save_lens
from melbo.inspect.lens.patchscope import ASK, describe
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.html import page
from melbo.inspect.max_activating.report import ActivatingConfig, ActivatingReport
from melbo.inspect.max_activating.table import table
from melbo.organism.inputs import ORGANISM, find_corpus
from melbo.runs.files import write_file
from melbo.runs.progress import Progress

_C = ActivatingConfig()
Bank = Annotated[Path, typer.Argument(help="Folder of the bank.")]
Vectors = Annotated[list[int] | None, typer.Option("--vector", help="May be given many times. Default: all.")]

inspect_app = typer.Typer(no_args_is_help=True, help="Look into a bank: which texts, tokens and directions it meets.")


def activating(
    bank: Bank,
    corpus: Annotated[str, typer.Option(help='Text or .jsonl file, hf:OWNER/NAME, or "organism".')] = ORGANISM,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    html: Annotated[Path | None, typer.Option(help="HTML file for the result.")] = None,
    vector: Vectors = None,
    no_duds: NoDuds = False,
    site: Annotated[str, typer.Option(help='Compare activations with the "effect" or the "vector" itself.')] = _C.site,
    layer: Annotated[int | None, typer.Option(help="Layer of the effect. Default: the last.")] = None,
    where: Annotated[str, typer.Option(help='Positions: "all", "answer" or "decision", just before it.')] = _C.where,
    rank: Annotated[str, typer.Option(help='Order by "dot" product or "cosine".')] = _C.rank,
    k: Annotated[int, typer.Option(help="Examples per vector and sign.")] = _C.k,
    show: Annotated[int, typer.Option(help="Examples to print.", min=0)] = 3,
    n_random: Annotated[int, typer.Option(help="Random vectors of the control.")] = _C.n_random,
    limit: Annotated[int | None, typer.Option(help="Most documents to read.")] = None,
    split: Annotated[str, typer.Option(help="Of a data set.")] = "train",
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Find where in a corpus each vector is most active, both signs, beside random vectors.

    With --out, a run that was stopped goes on from its checkpoint when the same command is run again.
    """
    config = ActivatingConfig(site=site, layer=layer, where=where, rank=rank, k=k, n_random=n_random)  # type: ignore[arg-type]
    loaded, vectors = load_both(bank, dtype, device, blocks)
    chosen = chosen_vectors(vectors, vector, not no_duds)
    texts = find_corpus(corpus, limit=limit, split=split)
    checkpoint = out.absolute().with_name(f".{out.name}.checkpoint.json") if out else None
    with tqdm(unit="token", unit_scale=True, leave=False, disable=None) as bar:

        def show_progress(step: Progress) -> None:
            bar.update(int(step.value or 0) - bar.n)

        if checkpoint is None:
            report = find_activating(loaded, vectors, texts, config, show_progress, None, chosen)
        else:
            with resumable(checkpoint):
                report = find_activating(loaded, vectors, texts, config, show_progress, checkpoint, chosen)
    _show(report, out, html, table(report, n=show))


def _show(report: ActivatingReport, out: Path | None, html: Path | None, text: str) -> None:
    if out is not None:
        report.save(out)
    if html is not None:
        write_file(html, page(report))
    say(plain(text))


def lens(
    bank: Bank,
    vector: Vectors = None,
    no_duds: NoDuds = False,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help='"effect" after the last block, "vector" or "output" direction; many times for several. '
            "Default: effect."
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="Tokens promoted, and as many suppressed.")] = 8,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Print the tokens that each vector promotes and suppresses, by the model's own unembedding."""
    loaded, vectors = load_both(bank, dtype, device, blocks)
    chosen = chosen_vectors(vectors, vector, not no_duds)
    found = [logit_lens(loaded, vectors, s, chosen, k) for s in dict.fromkeys(site or ["effect"])]  # type: ignore[arg-type]
    if out is not None:
        save_lens(found, out)
    say(plain("\n\n".join(report.table() for report in found)))


def geometry(
    bank: Bank,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for the plots, .png or .svg; needs matplotlib.")] = None,
    contrasts: Annotated[
        str | None,
        typer.Option(
            help='JSON of contrastive prompts: {"name": {"positive": [...], "negative": [...]}}, or "organism".'
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Mean cosine down to which vectors form a cluster.")] = 0.5,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Measure how vectors and effects lie to each other, to contrasts, and to later layers."""
    if plot is not None:
        check_drawable(plot.suffix)
    loaded, vectors = load_both(bank, dtype, device, blocks)
    found = measure_geometry(loaded, vectors, read_contrasts(contrasts), threshold)
    if out is not None:
        found.save(out)
    if plot is not None:
        plot_geometry(found, plot)
    say(plain(found.table()))


def patchscope(
    bank: Bank,
    vector: Annotated[list[int], typer.Option(help="May be given many times.")],
    layer: Annotated[int | None, typer.Option(help="Where the vector is put. Default: the source layer.")] = None,
    question: Annotated[str, typer.Option(help="Holds the word X in the vector's place.")] = ASK,
    scale: Annotated[float, typer.Option(help="Length, in units of what is replaced; may be negative.")] = 1.0,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Let the model say in its own words what a vector means. Small models answer with nonsense."""
    if not vector:
        raise ConfigError("no vector was chosen; give --vector.")
    loaded, vectors = load_both(bank, dtype, device, blocks)
    found = describe(loaded, vectors, vector, layer, question, scale)
    lines = [f"question: {found.question}", f"without a vector: {found.unpatched}", f"random: {found.random}"]
    lines += [f"vector {i}: {text}" for i, text in zip(vector, found.answers, strict=True)]
    say(plain("\n".join(lines)))


for _command in (activating, lens, geometry, patchscope, sae):
    inspect_app.command()(guarded(_command))
inspect_app.command("all")(guarded(inspect_all))
inspect_app.command("train-sae")(guarded(train_organism_sae))
