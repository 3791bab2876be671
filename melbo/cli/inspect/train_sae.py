"""`melbo inspect train-sae`: an SAE of the embedded model."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.cli.common import checkpoint_of, resumable, say, step_bar
from melbo.cli.options import Fields
from melbo.errors import SaeError
from melbo.inspect.sae.files import save_sae
from melbo.inspect.sae.train import SaeConfig
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from melbo.organism.sae import organism_sae

BASE = SaeConfig()


def train_organism_sae(
    out: Annotated[Path, typer.Option(help="Folder for the SAE.")],
    layer: Annotated[int, typer.Option(help="Block whose output it reads.", min=0)] = 2,
    config: Annotated[SaeConfig, Fields(("d_sae", "k", "steps", "seed"))] = BASE,
) -> None:
    """Train a TopK SAE for the embedded model, measure it on held-out chats, and save it in SAELens's layout."""
    if out.exists() and not out.is_dir():
        raise SaeError(f"{out} is a file; choose a folder.")
    loaded = load_model(ORGANISM)
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
