"""`melbo inspect activating`: where in a corpus each vector is most active."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.select import chosen_vectors
from melbo.cli.arguments import ANYWHERE, Bank, Corpus, NoDuds, Result, Split, Vectors, Where
from melbo.cli.common import plain, run_and_save, say, token_bar
from melbo.cli.defaults import CORPUS
from melbo.cli.options import Fields
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.report import ActivatingConfig, page, table
from melbo.organism.inputs import find_corpus
from melbo.runs.files import write_file

BASE = ActivatingConfig()
OPTIONS = Fields(("site", "layer", "where", "rank", "k", "n_random"))


def activating(
    bank: Bank,
    corpus: Corpus = CORPUS,
    out: Result = None,
    html: Annotated[Path | None, typer.Option(help="HTML file for the result.")] = None,
    vector: Vectors = None,
    no_duds: NoDuds = False,
    config: Annotated[ActivatingConfig, OPTIONS] = BASE,
    show: Annotated[int, typer.Option(help="Examples to print.", min=0)] = 3,
    limit: Annotated[int | None, typer.Option(help="Most documents to read.")] = None,
    split: Split = "train",
    placement: Where = ANYWHERE,
) -> None:
    """Find where in a corpus each vector is most active, both signs, beside random vectors.

    With --out, a run that was stopped goes on from its checkpoint when the same command is run again.
    """
    loaded, vectors = placement.load_both(bank)
    chosen = chosen_vectors(vectors, vector, not no_duds)
    texts = find_corpus(corpus, limit=limit, split=split)
    report = run_and_save(
        lambda progress, checkpoint: find_activating(loaded, vectors, texts, config, progress, checkpoint, chosen),
        out,
        token_bar(),
    )
    if html is not None:
        write_file(html, page(report))
    say(plain(table(report, n=show)))
