"""How often the sparse decomposition of a vector that elicits a planted mode names a feature of that mode.

Only on the embedded organism, where the modes are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.inspect.sae.compare import CONTROL_SEED, Parts, decompose
from melbo.inspect.sae.dictionary import Sae, check_bank
from melbo.inspect.sae.features import FeatureNotes, describe_features, read_activations
from melbo.inspect.sae.files import load_sae
from melbo.inspect.sae.train import SaeConfig, SaeQuality, measure_sae, train_sae
from melbo.models.load import LoadedModel
from melbo.organism.inputs import ORGANISM, organism_corpus
from melbo.runs.progress import OnProgress
from melbo.steering.random_vectors import random_vectors

TRAIN_CHATS, HELDOUT_CHATS, NOTE_CHATS = 5000, 600, 2200
DECISIONS = 24
"""How many times the position just before each answer is repeated among the training activations. It is one token in
seventy, and the one at which vectors are found and modes are settled."""
FEATURES = 8
"""Features of a decomposition."""
TOP = 5
"""How many of them, largest first, may name the mode."""
REPEATS = 20
"""Random directions per vector of the control."""
Case = tuple[int, int, str]
"""A vector, a sign, and the planted mode that they elicit."""


@dataclass(frozen=True)
class SaeShare:
    """Shares of the vectors whose largest features name their mode."""

    share: float
    random: float
    """The same for random directions with the same modes."""
    vectors: int


def organism_sae(
    loaded: LoadedModel,
    layer: int,
    config: SaeConfig | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> tuple[Sae, SaeQuality]:
    """Train the organism's SAE on corpus chats of all modes, and measure it on held-out ones (all positions)."""
    corpus = organism_corpus(TRAIN_CHATS, 1)
    decisions = read_activations(loaded, corpus, layer, "decision")
    rows = torch.cat([read_activations(loaded, corpus, layer), decisions.repeat(DECISIONS, 1)])
    sae = train_sae(rows, layer, loaded.name, config, progress, checkpoint)
    heldout = organism_corpus(HELDOUT_CHATS, 2, "heldout")
    return sae, measure_sae(sae, read_activations(loaded, heldout, layer))


def note_features(loaded: LoadedModel, sae: Sae) -> FeatureNotes:
    """Marks of an SAE's features on the organism's chats, at the position just before the answer."""
    return describe_features(loaded, sae, organism_corpus(NOTE_CHATS, 3), "decision")


def sae_share(loaded: LoadedModel, bank: VectorBank, cases: Sequence[Case], sae: Sae | None = None) -> SaeShare:
    """Share of cases (vector, sign, mode) whose largest features name the mode; sae None: the shipped one.

    Raises:
        SaeError: the bank's layer is not the SAE's.
    """
    sae = load_sae(ORGANISM, loaded=loaded, layer=bank.layer) if sae is None else sae
    return share_of_cases(bank, sae, note_features(loaded, sae), cases)


def share_of_cases(
    bank: VectorBank, sae: Sae, notes: FeatureNotes, cases: Sequence[Case], positive: bool = True
) -> SaeShare:
    """As `sae_share`: whether a mark of the TOP largest features with a coefficient above zero is the case's mode.

    Only features with enough examples in `notes` take part: rare ones fit a vector by chance, and have no mark.
    """
    check_bank(sae, bank)
    modes = [mode for _, _, mode in cases]
    vectors = torch.stack([bank.vector(vector, float(sign)) for vector, sign, _ in cases])
    control = random_vectors(len(modes) * REPEATS, sae.spec.d_in, 1.0, False, CONTROL_SEED)
    return SaeShare(
        _named(sae, notes, vectors, modes, positive), _named(sae, notes, control, modes * REPEATS, positive), len(modes)
    )


def _named(sae: Sae, notes: FeatureNotes, vectors: Tensor, modes: Sequence[str], positive: bool) -> float:
    found = decompose(sae, vectors, FEATURES, positive, notes.common)
    return sum(mode in _marks(parts, notes) for parts, mode in zip(found, modes, strict=True)) / len(modes)


def _marks(parts: Parts, notes: FeatureNotes) -> set[str]:
    pairs = list(zip(parts.features, parts.weights, strict=True))[:TOP]
    return {notes.marks[feature] for feature, weight in pairs if weight > 0}
