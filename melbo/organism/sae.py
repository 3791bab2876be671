"""The organism's own sparse autoencoder."""

from pathlib import Path

import torch

from melbo.inspect.sae.dictionary import Sae
from melbo.inspect.sae.features import read_activations
from melbo.inspect.sae.train import SaeConfig, SaeQuality, measure_sae, train_sae
from melbo.models.load import LoadedModel
from melbo.organism.inputs import organism_corpus
from melbo.runs.progress import OnProgress

TRAIN_CHATS, HELDOUT_CHATS = 5000, 600
DECISIONS = 24
"""How many times the position just before each answer is repeated among the training activations. It is one token in
seventy, and the one at which vectors are found and modes are settled."""


def organism_sae(
    loaded: LoadedModel, layer: int, config: SaeConfig, progress: OnProgress, checkpoint: Path
) -> tuple[Sae, SaeQuality]:
    """Train the organism's SAE on corpus chats of all modes, and measure it on held-out ones (all positions)."""
    corpus = organism_corpus(TRAIN_CHATS, 1)
    decisions = read_activations(loaded, corpus, layer, "decision")
    rows = torch.cat([read_activations(loaded, corpus, layer), decisions.repeat(DECISIONS, 1)])
    sae = train_sae(rows, layer, loaded.name, config, progress, checkpoint)
    heldout = organism_corpus(HELDOUT_CHATS, 2, "heldout")
    return sae, measure_sae(sae, read_activations(loaded, heldout, layer))
