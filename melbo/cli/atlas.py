"""`melbo atlas`: how strongly each layer answers to each earlier one, as a table and a heat map."""

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from melbo.cli.arguments import ANYWHERE, Model, Prompts, System, Where
from melbo.cli.common import plain, resumable, say
from melbo.cli.defaults import MODEL, PROMPT, SYSTEM
from melbo.cli.options import Fields
from melbo.inspect.layers.measure import AtlasConfig, layer_atlas
from melbo.prompts import chat
from melbo.runs.figures import check_drawable
from melbo.runs.processes import process_rank
from melbo.runs.progress import on_bar

BASE = AtlasConfig()


def atlas(
    out: Annotated[Path, typer.Option(help="JSON file for the atlas; one that is unfinished is gone on with.")],
    plot: Annotated[Path | None, typer.Option(help="File for the heat maps, .png or .svg; needs matplotlib.")] = None,
    model: Model = MODEL,
    prompt: Prompts = None,
    system: System = SYSTEM,
    config: Annotated[AtlasConfig, Fields()] = BASE,
    best: Annotated[int | None, typer.Option(help="Print only the best pairs, so many.", min=1)] = None,
    where: Where = ANYWHERE,
) -> None:
    """Measure the sensitivity of every source/target pair of layers, and print it.

    Stopped or killed, the same command goes on after the last finished pair and gives the same atlas; on a finished
    one, it prints and draws again.
    """
    if plot is not None:
        check_drawable(plot.suffix)
    loaded = where.load(model)
    messages = [chat(text, system) for text in prompt or [PROMPT]]
    with tqdm(unit="pair", leave=False, disable=None) as bar, resumable(out):
        found = layer_atlas(loaded, messages, config, on_bar(bar, "relative"), checkpoint=out)
    say(f"{plain(found.table(best))}\nsaved to {out}")
    if plot is not None and process_rank() == 0:
        found.plot(plot)
        say(f"heat maps in {plot}")
