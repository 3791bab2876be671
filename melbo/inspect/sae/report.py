"""sae.json: a bank's vectors beside an SAE's features, the same for random directions, and what the features are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from melbo.bank.result_file import base_model, checked, items, number, read_result, text, whole, write_result
from melbo.bank.results import FORMATS, SAE
from melbo.bank.vector_bank import BaseModel, VectorBank
from melbo.inspect.max_activating.corpus_reader import Corpus
from melbo.inspect.sae.compare import CONTROL_SEED, Parts, SaeComparison, compare, nearest
from melbo.inspect.sae.dictionary import ENCODER_WARNING, Sae, SaeSpec
from melbo.inspect.sae.features import FeatureNotes, describe_features
from melbo.models.load import LoadedModel
from melbo.runs.digest import bank_digest
from melbo.steering.random_vectors import random_vectors

FORMAT = FORMATS[SAE]
EXAMPLES = 3
"""Strongest examples of a feature that are kept."""
N_RANDOM = 256
"""Random directions whose greatest cosines are the level of `nearest`."""
_ROWS = ("nearest", "decomposition", "positive", "changed")


@dataclass(frozen=True)
class FeatureNote:
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
class SaeReport:
    """A comparison with what is needed to read it."""

    bank: str
    """Digest of the bank's vectors (melbo/runs/digest.py)."""
    model: BaseModel
    sae: SaeSpec
    corpus: str
    """What the notes are from; "" for none."""
    vectors: tuple[int, ...]
    """Numbers of the vectors, in the comparison's order."""
    scale: float
    """Times the vectors."""
    comparison: SaeComparison
    random_nearest: float
    """Greatest cosine of a random direction with a decoder direction, mean over many."""
    random_most: float
    """The greatest of them."""
    features: dict[int, FeatureNote]
    """By number, each feature that is named anywhere; empty without a corpus."""

    def save(self, path: Path) -> Path:
        """Write JSON."""
        held = asdict(self)
        held |= {**held.pop("comparison"), "features": {str(f): note for f, note in held["features"].items()}}
        return write_result(path, FORMAT, {"warning": ENCODER_WARNING, **held})

    @classmethod
    def load(cls, path: Path) -> SaeReport:
        """Inverse of `save`.

        Raises:
            CorpusError: no such file, damaged, or of another format.
        """
        raw = read_result(path, FORMAT)
        with checked(path):
            found = cls(
                bank=text(raw["bank"]),
                model=base_model(raw["model"]),
                sae=SaeSpec(**raw["sae"]),
                corpus=text(raw["corpus"]),
                vectors=items(raw["vectors"], whole),
                scale=number(raw["scale"]),
                comparison=SaeComparison(
                    nearest=items(raw["nearest"], _parts),
                    decomposition=items(raw["decomposition"], _parts),
                    positive=items(raw["positive"], _parts),
                    changed=items(raw["changed"], _parts),
                    random=items(raw["random"], number),
                    random_positive=items(raw["random_positive"], number),
                ),
                random_nearest=number(raw["random_nearest"]),
                random_most=number(raw["random_most"]),
                features={int(f): _note(note) for f, note in raw["features"].items()},
            )
            text(found.sae.model_name), text(found.sae.source)
            if {len(getattr(found.comparison, name)) for name in _ROWS} != {len(found.vectors)}:
                raise ValueError("rows of different numbers of vectors")
        return found


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
        bank_digest(bank.vectors), bank.base_model, replace(sae.spec, source=source), corpus.name if corpus else "",
        chosen, scale, found, sum(best) / len(best), max(best), _notes(found, notes),
    )  # fmt: skip


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


def _parts(raw: dict[str, Any]) -> Parts:
    made = Parts(items(raw["features"], whole), items(raw["weights"], number), items(raw["explained"], number))
    if len(made.features) != len(made.weights):
        raise ValueError("features without weights")
    return made


def _note(raw: dict[str, Any]) -> FeatureNote:
    return FeatureNote(text(raw["mark"]), number(raw["lift"]), number(raw["active"]), items(raw["examples"], text))
