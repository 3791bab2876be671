"""`melbo inspect all`: geometry, logit lens, SAE neighbours and activating examples, written beside a bank."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Annotated

import typer
from tqdm import tqdm

from melbo.bank.result_file import ACTIVATING, GEOMETRY, LENS, MAX_SHOWN_BYTES, SAE
from melbo.bank.select import chosen_vectors
from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import ANYWHERE, NoDuds, OtherModel, SaeFolder, Split, Where
from melbo.cli.arguments import Corpus as CorpusName
from melbo.cli.common import plain, run_and_save, say, token_bar
from melbo.cli.defaults import CORPUS, MODEL
from melbo.cli.inspect.sae import public_name
from melbo.errors import SaeError
from melbo.inspect.geometry.difference_of_means import Contrast, load_contrasts
from melbo.inspect.geometry.similarity import measure_geometry
from melbo.inspect.lens.logit_lens import LensSite, logit_lens, save_lens
from melbo.inspect.max_activating.corpus_reader import Corpus, Item
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.report import ActivatingConfig, best_values
from melbo.inspect.sae.dictionary import Sae
from melbo.inspect.sae.files import load_sae
from melbo.inspect.sae.report import SaeReport, sae_report
from melbo.models.load import LoadedModel
from melbo.organism.inputs import find_corpus, organism_contrasts

SITES: tuple[LensSite, ...] = ("effect", "vector")
DOCUMENTS = 1000
"""Most documents that SAE features are described with."""


def inspect_all(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank; the files are written there.")],
    corpus: CorpusName = CORPUS,
    limit: Annotated[int | None, typer.Option(help="Most documents of the corpus.", min=1)] = None,
    split: Split = "train",
    contrasts: Annotated[
        str | None, typer.Option(help='As for `melbo inspect geometry`. Default: "organism" for the embedded model.')
    ] = None,
    sae: Annotated[
        str | None,
        typer.Option("--sae", help="Folder or Hub repository of an SAE. Default: the embedded model's own."),
    ] = None,
    sae_folder: SaeFolder = "",
    other_model: OtherModel = False,
    no_duds: NoDuds = False,
    k: Annotated[int, typer.Option(help="Activating examples per vector and sign.", min=1)] = 6,
    where: Where = ANYWHERE,
) -> None:
    """Write geometry.json, lens.json, sae.json and activating.json beside a bank, each with its random control.

    The app, the model card and `melbo push` take them from there. Stopped in the last part, activating examples, the
    same command goes on with that part.
    """
    loaded, vectors = where.load_both(bank)
    chosen = chosen_vectors(vectors, None, not no_duds)
    texts = find_corpus(corpus, limit=limit, split=split)
    sides = read_contrasts(contrasts or (MODEL if loaded.name == MODEL else None))
    dictionary = _find_sae(loaded, vectors, sae, sae_folder, other_model)
    described = find_corpus(corpus, limit=min(limit or DOCUMENTS, DOCUMENTS), split=split)
    _geometry(loaded, vectors, sides, bank / GEOMETRY)
    _lens(loaded, vectors, chosen, bank / LENS)
    if dictionary is not None:
        with _documents(described) as counted:
            features = sae_report(
                loaded, vectors, dictionary, public_name(sae or MODEL, sae_folder), chosen, corpus=counted
            )
        _wrote(features.save(bank / SAE), _explained(features))
    examples = run_and_save(
        lambda progress, at: find_activating(loaded, vectors, texts, ActivatingConfig(k=k), progress, at, chosen),
        bank / ACTIVATING,
        token_bar(ACTIVATING),
    )
    own, control = median(best_values(examples.directions)), median(best_values(examples.control))
    said = f"{examples.tokens} tokens; best value {own:.1f} spreads, of random directions {control:.1f}"
    _wrote(bank / ACTIVATING, said)


def read_contrasts(source: str | None) -> tuple[Contrast, ...]:
    """Contrasts of a JSON file, the organism's, or none.

    Raises:
        CorpusError: there is no such file, or it holds something else.
    """
    if source is None:
        return ()
    return organism_contrasts() if source == MODEL else load_contrasts(Path(source))


def _find_sae(loaded: LoadedModel, bank: VectorBank, source: str | None, folder: str, other_model: bool) -> Sae | None:
    """The SAE; None, and a line that says so, where none is named and the embedded one does not fit."""
    try:
        return load_sae(source or MODEL, folder, loaded, bank.layer, other_model)
    except SaeError as error:
        if source is not None:
            raise
        said = "the embedded SAE does not fit" if loaded.name == MODEL else "no SAE is known"
        say(plain(f"{SAE} is left out: {said} for {bank.base_model.id}, block {bank.layer}; name one with --sae."))
        if loaded.name == MODEL:
            say(plain(f"  {error}"))
        return None


def _geometry(loaded: LoadedModel, bank: VectorBank, sides: Sequence[Contrast], out: Path) -> None:
    with _waiting(GEOMETRY):
        found = measure_geometry(loaded, bank, sides)
    p = found.participation
    _wrote(
        found.save(out),
        f"what the blocks add fills {p['added']:.1f} dimensions, of random vectors {p['random added']:.1f}",
    )


def _lens(loaded: LoadedModel, bank: VectorBank, chosen: list[int], out: Path) -> None:
    with _waiting(LENS):
        reports = [logit_lens(loaded, bank, site, chosen) for site in SITES]
    best = [median(row.promoted[0].value for row in report.rows) for report in reports]
    said = "; ".join(
        f"{report.site}: best token {value:.1f} (random {report.random_best:.1f})"
        for report, value in zip(reports, best, strict=True)
    )
    _wrote(save_lens(reports, out), said)


def _explained(report: SaeReport) -> str:
    share = fmean(parts.explained[-1] for parts in report.decomposition if parts.explained)
    return f"{len(report.random)} features explain {share:.0%} of a vector, {report.random[-1]:.0%} of a random one"


@contextmanager
def _waiting(name: str) -> Iterator[None]:
    with tqdm(total=1, desc=name, unit="file", leave=False, disable=None) as bar:
        yield
        bar.update()


@contextmanager
def _documents(corpus: Corpus) -> Iterator[Corpus]:
    """The same corpus with a bar that counts its documents."""
    with tqdm(desc=SAE, unit="text", leave=False, disable=None) as bar:

        def read() -> Iterator[Item]:
            for item in corpus.read():
                bar.update()
                yield item

        yield replace(corpus, read=read)


def _wrote(path: Path, said: str) -> None:
    say(plain(f"{path}: {said}"))
    if path.stat().st_size > MAX_SHOWN_BYTES:
        most = MAX_SHOWN_BYTES // 2**20
        say(f"  it is larger than {most} MiB, so that it is neither shown nor pushed; use --no-duds or a smaller --k")
