"""`melbo atlas`: how strongly each layer answers to each earlier one, as a table and a heat map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from melbo.cli.common import Blocks, Device, Dtype, plain, resumable, say
from melbo.config import MAX_SEED
from melbo.inspect.layers.heat_map import check_drawable
from melbo.inspect.layers.measure import AtlasConfig, layer_atlas
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from melbo.prompts import BOMB, DEFAULT_SYSTEM, chat
from melbo.runs.processes import process_rank
from melbo.runs.progress import on_bar

_A = AtlasConfig()


def atlas(
    out: Annotated[Path, typer.Option(help="JSON file for the atlas; one that is unfinished is gone on with.")],
    plot: Annotated[Path | None, typer.Option(help="File for the heat maps, .png or .svg; needs matplotlib.")] = None,
    model: Annotated[str, typer.Option(help='Hub id, folder, or "organism", the embedded model.')] = ORGANISM,
    prompt: Annotated[list[str] | None, typer.Option(help=f"May be given many times. Default: {BOMB}")] = None,
    system: Annotated[str, typer.Option(help='System message; "" for none.')] = DEFAULT_SYSTEM,
    k: Annotated[int, typer.Option(help="Directions followed for each pair.")] = _A.k,
    iterations: Annotated[int, typer.Option(help="Power iterations of each pair.")] = _A.iterations,
    target_tokens: Annotated[int, typer.Option(help="Last prompt tokens to compare.")] = _A.target_tokens,
    best: Annotated[int | None, typer.Option(help="Print only the best pairs, so many.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the starting points.", min=0, max=MAX_SEED)] = _A.seed,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Measure the sensitivity of every source/target pair of layers, and print it.

    Stopped or killed, the same command goes on after the last finished pair and gives the same atlas; on a finished
    one, it prints and draws again.
    """
    config = AtlasConfig(k=k, iterations=iterations, target_tokens=target_tokens, seed=seed)
    if plot is not None:
        check_drawable(plot.suffix)
    loaded = load_model(model, dtype=dtype, device=device, blocks=blocks)
    messages = [chat(text, system) for text in prompt or [BOMB]]
    with tqdm(unit="pair", leave=False, disable=None) as bar, resumable(out):
        found = layer_atlas(loaded, messages, config, on_bar(bar, "relative"), checkpoint=out)
    say(f"{plain(found.table(best))}\nsaved to {out}")
    if plot is not None and process_rank() == 0:
        found.plot(plot)
        say(f"heat maps in {plot}")
