"""`melbo import`: a bank of vectors from another program's file."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.save import replaceable
from melbo.cli.arguments import ANYWHERE, Force, NewBank, System, Where
from melbo.cli.common import plain
from melbo.cli.defaults import MODEL, MODEL_HELP, PROMPT, SYSTEM
from melbo.cli.options import Fields
from melbo.config import DiscoveryConfig, from_published_layers
from melbo.errors import BankError, ConfigError
from melbo.formats.import_vectors import import_vectors
from melbo.formats.read_vectors import read_vectors
from melbo.prompts import chat

PUBLISHED = DiscoveryConfig(optimizer="published")
MEASURED = ("target_layer", "power", "root", "target_tokens")
"""Settings that a vector's file does not hold."""


def import_file(
    file: Annotated[Path, typer.Argument(help="A .gguf, .svec, .npy, .safetensors or .pt file.")],
    out: NewBank,
    model: Annotated[str, typer.Option(help=f"The model they were made for. {MODEL_HELP}")] = MODEL,
    source_layer: Annotated[int | None, typer.Option(help="Steered block. Default: the file's.")] = None,
    published_layers: Annotated[
        bool,
        typer.Option("--published-layers", help="The layers are the published code's: 4 and 12 there are 4 and 11."),
    ] = False,
    prompt: Annotated[list[str] | None, typer.Option(help=f"To measure on; many times. Default: {PROMPT}")] = None,
    system: System = SYSTEM,
    config: Annotated[DiscoveryConfig, Fields(MEASURED)] = PUBLISHED,
    where: Where = ANYWHERE,
    force: Force = False,
) -> None:
    """Make a bank of vectors from another program's file, measured on the model they were made for."""
    if out.exists() and not (replaceable(out) and (force or not any(out.iterdir()))):
        raise BankError(f"{out} is not empty; choose a new folder, or replace a bank in it with --force.")
    if published_layers:
        if source_layer is None or config.target_layer is None:
            raise ConfigError("--published-layers translates --source-layer and --target-layer; give both.")
        source_layer, target_layer = from_published_layers(source_layer, config.target_layer)
        config = replace(config, target_layer=target_layer)
    foreign = read_vectors(file, source_layer)
    config = replace(config, source_layer=foreign.layer)
    loaded = where.load(model)
    messages = [chat(text, system) for text in prompt or [PROMPT]]
    bank = import_vectors(loaded, foreign, config, messages, source=file.name)
    bank.save(out)
    found = bank.objective
    said = (
        f"{len(bank)} vectors at the output of block {bank.layer}, R = {bank.radius:.4g} "
        f"({bank.radius / bank.mean_residual_norm:.3g} x the mean residual norm), objective "
        f"{float(found.min()):.4g} to {float(found.max()):.4g}\nsaved to {out}"
    )
    typer.echo(plain(said))
