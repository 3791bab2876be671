"""sae.json: a bank's vectors beside an SAE's features, the same for random directions, and what the features are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BeforeValidator

from melbo.bank.result_file import FORMATS, SAE, Count, Extensible, FileKind, Result
from melbo.bank.vector_bank import VectorBank
from melbo.errors import CorpusError
from melbo.inspect.max_activating.corpus_reader import Corpus
from melbo.inspect.sae.compare import CONTROL_SEED, SaeComparison, compare, nearest
from melbo.inspect.sae.dictionary import ENCODER_WARNING, Sae, SaeSpec
from melbo.inspect.sae.features import FeatureNotes, describe_features
from melbo.models.load import LoadedModel
from melbo.steering.random_vectors import random_vectors

EXAMPLES = 3
"""Strongest examples of a feature that are kept."""
N_RANDOM = 256
"""Random directions whose greatest cosines are the level of `nearest`."""
_ROWS = ("nearest", "decomposition", "positive", "changed")


@dataclass(frozen=True)
class FeatureNote(Extensible):
    """What is known of one feature."""

    mark: str
    """What its strongest examples have in common, such as a mode; "" where nothing stands out."""
    lift: float
    """That mark's share among the examples over its share in the corpus; 0 without a mark."""
    active: float
    """Share of the corpus's positions at which it is active, 0 to 1."""
    examples: tuple[str, ...]
    """Strongest first, the position between >> and <<."""


@dataclass(frozen=True)
class _Head(Result):
    """What the file holds before the comparison."""

    sae: SaeSpec
    corpus: str
    """What the notes are from; "" for none."""
    vectors: tuple[Count, ...]
    """Numbers of the vectors, in the comparison's order."""
    scale: float
    """Times the vectors."""
    random_nearest: float
    """Greatest cosine of a random direction with a decoder direction, mean over many."""
    random_most: float
    """The greatest of them."""
    features: Mapping[Annotated[int, BeforeValidator(int)], FeatureNote]
    """By number, each feature that is named anywhere; empty without a corpus."""


@dataclass(frozen=True)
class SaeReport(SaeComparison, _Head):
    """A comparison with what is needed to read it."""

    file = FileKind(FORMATS[SAE], "comparison with an SAE", "melbo inspect sae", before=("warning",))

    def __post_init__(self) -> None:
        if {len(getattr(self, name)) for name in _ROWS} != {len(self.vectors)}:
            raise CorpusError("rows of different numbers of vectors")

    @property
    def warning(self) -> str:
        """For readers of the file."""
        return ENCODER_WARNING


def sae_report(
    loaded: LoadedModel,
    bank: VectorBank,
    sae: Sae,
    source: str,
    indices: Sequence[int] | None = None,
    scale: float = 1.0,
    k: int = 8,
    corpus: Corpus | None = None,
) -> SaeReport:
    """Compare some of a bank's vectors (None: all), each times `scale`, with an SAE's features.

    Args:
        source: where the SAE is from, for readers: no path of this machine.
        k: features per vector.
        corpus: what features are described with; sums then use only those with enough examples in it.

    Raises:
        BankError, SaeError: the bank, the SAE and the model do not belong together.
        CorpusError: the corpus holds nothing to read.
    """
    chosen = tuple(range(len(bank)) if indices is None else indices)
    notes = None if corpus is None else describe_features(loaded, sae.to(loaded.device), corpus)
    found = compare(loaded, bank, sae, chosen, scale, k, None if notes is None else notes.common)
    control = nearest(sae, random_vectors(N_RANDOM, sae.spec.d_in, 1.0, False, CONTROL_SEED), 1)
    best = [parts.weights[0] for parts in control]
    return SaeReport(
        bank=bank.digest,
        model=bank.base_model,
        sae=replace(sae.spec, source=source),
        corpus=corpus.name if corpus else "",
        vectors=chosen,
        scale=scale,
        random_nearest=sum(best) / len(best),
        random_most=max(best),
        features=_notes(found, notes),
        **vars(found),
    )


def _notes(found: SaeComparison, notes: FeatureNotes | None) -> dict[int, FeatureNote]:
    if notes is None:
        return {}
    named = sorted({f for name in _ROWS for parts in getattr(found, name) for f in parts.features})
    return {
        f: FeatureNote(
            notes.marks[f], notes.lifts[f], float(notes.active[f]),
            tuple(example for n in range(EXAMPLES) if (example := notes.example(f, n))),
        )
        for f in named
    }  # fmt: skip
