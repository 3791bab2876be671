"""`melbo inspect train-sae`: an SAE of the embedded model."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from melbo.cli.common import checkpoint_of, resumable, say, step_bar
from melbo.cli.defaults import MODEL
from melbo.cli.options import Fields
from melbo.errors import SaeError
from melbo.inspect.sae.dictionary import Sae
from melbo.inspect.sae.features import read_activations
from melbo.inspect.sae.files import save_sae
from melbo.inspect.sae.train import SaeConfig, SaeQuality, measure_sae, train_sae
from melbo.models.load import LoadedModel, load_model
from melbo.organism.inputs import organism_corpus
from melbo.runs.progress import OnProgress

BASE = SaeConfig()
TRAIN_CHATS, HELDOUT_CHATS = 5000, 600
DECISIONS = 24
"""How many times the position just before each answer is repeated among the training activations. It is one token in
seventy, and the one at which vectors are found and modes are settled."""


def train_organism_sae(
    out: Annotated[Path, typer.Option(help="Folder for the SAE.")],
    layer: Annotated[int, typer.Option(help="Block whose output it reads.", min=0)] = 2,
    config: Annotated[SaeConfig, Fields(("d_sae", "k", "steps", "seed"))] = BASE,
) -> None:
    """Train a TopK SAE for the embedded model, measure it on held-out chats, and save it in SAELens's layout."""
    if out.exists() and not out.is_dir():
        raise SaeError(f"{out} is a file; choose a folder.")
    loaded = load_model(MODEL)
    checkpoint = checkpoint_of(out, ".safetensors")
    say("reading activations")
    with step_bar(config.steps, "unexplained") as show, resumable(checkpoint):
        made, quality = organism_sae(loaded, layer, config, show, checkpoint)
    save_sae(made, out)
    checkpoint.unlink(missing_ok=True)
    say(
        f"explained variance {quality.explained_variance:.3f}, L0 {quality.l0:.1f}, dead {quality.dead_share:.1%} on "
        f"{quality.activations} held-out activations\nsaved to {out}"
    )


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
