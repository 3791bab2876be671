"""`melbo train` and `melbo more-like`: find a bank of steering vectors and save it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from melbo.bank.vector_bank import VectorBank, replaceable
from melbo.cli.common import Blocks, Device, Dtype, run_and_save, say
from melbo.config import MAX_SEED, STEPS, DiscoveryConfig, Optimizer, RadiusUnit, Variant
from melbo.discovery.discover import discover, find_more_like
from melbo.errors import BankError, ConfigError
from melbo.inspect.sae.files import load_sae
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from melbo.prompts import BOMB, DEFAULT_SYSTEM, chat

TrainMethod = Literal["melbo", "dct", "power", "sae-basis", "random"]
_D = DiscoveryConfig()
Out = Annotated[Path, typer.Option(help="Folder for the bank.")]
Steps = Annotated[
    int | None, typer.Option(help="Steps. Default: 40 fast, 300 published or more-like, 40 sae-basis, 8 dct, 10 power.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the bank in the folder.")]


def train(
    out: Out,
    model: Annotated[str, typer.Option(help='Hub id, folder, or "organism", the embedded model.')] = ORGANISM,
    prompt: Annotated[list[str] | None, typer.Option(help=f"May be given many times. Default: {BOMB}")] = None,
    system: Annotated[str, typer.Option(help='System message; "" for none.')] = DEFAULT_SYSTEM,
    method: Annotated[TrainMethod, typer.Option(help='"random" is the control.')] = "melbo",
    optimizer: Annotated[Optimizer, typer.Option(help='Of melbo; "published" is AdamW.')] = _D.optimizer,
    variant: Annotated[Variant, typer.Option(help="Of dct.")] = _D.variant,
    sae: Annotated[str, typer.Option(help='Of sae-basis: folder, Hub repository, or "organism".')] = ORGANISM,
    sae_folder: Annotated[str, typer.Option(help='Folder within --sae, such as "layers.10".')] = "",
    other_model: Annotated[bool, typer.Option("--other-model", help="Allow an SAE of another model's name.")] = False,
    sparsity: Annotated[int, typer.Option(help="Of sae-basis: most features of a vector.")] = _D.sparsity,
    n_vectors: Annotated[int, typer.Option(help="How many vectors to find.")] = _D.n_vectors,
    source_layer: Annotated[int | None, typer.Option(help="Steered block. Default: 0.25 of the depth.")] = None,
    target_layer: Annotated[int | None, typer.Option(help="Compared block. Default: 0.75 of the depth.")] = None,
    radius: Annotated[str, typer.Option(help='Norm R of each vector, or "auto".')] = str(_D.radius),
    radius_unit: Annotated[
        RadiusUnit, typer.Option(help='"residual": multiples of the mean residual norm; "absolute": as it is.')
    ] = _D.radius_unit,
    power: Annotated[float, typer.Option(help="Exponent p of the objective.")] = _D.power,
    root: Annotated[float, typer.Option(help="Root q of the objective.")] = _D.root,
    target_tokens: Annotated[int, typer.Option(help="Last prompt tokens to compare.")] = _D.target_tokens,
    skip_tokens: Annotated[int, typer.Option(help="Prompt tokens after these to leave out.")] = _D.skip_tokens,
    steps: Steps = None,
    lr: Annotated[float, typer.Option(help="Step size of the published optimizer, in units of R.")] = _D.lr,
    orthogonal: Annotated[bool, typer.Option(help="Keep the vectors orthogonal.")] = _D.orthogonal,
    effect_penalty: Annotated[
        float, typer.Option(help="Of melbo: how much equal effects count against a vector.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the starting points.", min=0, max=MAX_SEED)] = _D.seed,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
    force: Force = False,
) -> None:
    """Find steering vectors that change the model's activations most, and save them as a bank.

    Stopped or killed, the same command goes on from its last checkpoint and gives the same bank.
    """
    auto = radius.strip().lower() == "auto"
    if radius_unit == "auto" and not auto:
        raise ConfigError(f"radius is {radius!r} and its unit is 'auto'; write --radius auto, or choose another unit.")
    unit: RadiusUnit = "auto" if auto else radius_unit
    config = DiscoveryConfig(
        method=method, optimizer=optimizer, variant=variant, n_vectors=n_vectors, source_layer=source_layer,
        target_layer=target_layer, radius=_D.radius if auto else number(radius), radius_unit=unit,
        power=power, root=root, target_tokens=target_tokens, skip_tokens=skip_tokens, steps=steps, lr=lr,
        orthogonal=orthogonal, effect_penalty=effect_penalty, sparsity=sparsity, seed=seed,
    )  # fmt: skip
    check_out(out, force)
    loaded = load_model(model, dtype=dtype, device=device, blocks=blocks)
    config = config.resolve(loaded.n_layers, loaded.d_model)
    say(f"model {loaded.name}: {loaded.n_layers} blocks, d_model {loaded.d_model}, on {loaded.device}")
    say("\n".join(f"  {name} = {value}" for name, value in config.to_dict().items()))
    messages = [chat(text, system) for text in prompt or [BOMB]]
    basis = method == "sae-basis"
    decoder = load_sae(sae, sae_folder, loaded, config.source_layer, other_model).decoder if basis else None
    run_and_save(
        lambda progress, checkpoint: discover(loaded, config, messages, progress, checkpoint, decoder=decoder),
        report,
        out,
        config.steps or 0,
    )


def more_like(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    vector: Annotated[int, typer.Argument(help="Which of its vectors.")],
    out: Out,
    n_vectors: Annotated[int, typer.Option(help="How many vectors to find.")] = 16,
    model: Annotated[str | None, typer.Option(help="Default: the model that the bank names.")] = None,
    steps: Steps = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
    force: Force = False,
) -> None:
    """Find vectors with the effect of one of a bank's, orthogonal to it, and save them as a new bank."""
    check_out(out, force)
    old = VectorBank.load(bank)
    loaded = load_model(model or old.base_model.id, dtype=dtype, device=device, blocks=blocks)
    run_and_save(
        lambda progress, checkpoint: find_more_like(loaded, old, vector, n_vectors, progress, checkpoint, steps),
        report,
        out,
        steps or STEPS["more-like"],
    )


def number(text: str) -> float:
    """A radius given as text.

    Raises:
        ConfigError: it is no number.
    """
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f'radius is {text!r}; give a number greater than 0, or "auto".') from error


def check_out(out: Path, force: bool) -> None:
    """Find out before training whether a bank can be saved to `out`.

    Raises:
        BankError: `out` is a file, cannot be written, holds a bank (without `force`), or holds other files.
    """
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise BankError(f"{out} cannot be written: {parent} is not a folder that you may write to; choose another.")
    if not out.exists():
        return
    if not out.is_dir():
        raise BankError(f"{out} is a file; choose a new folder.")
    if not replaceable(out):
        raise BankError(f"{out} holds other files and is not a bank; choose a new folder.")
    if any(out.iterdir()) and not force:
        raise BankError(f"{out} already holds a bank; choose a new folder, or add --force to replace it.")


def report(bank: VectorBank, out: Path) -> str:
    """Where the bank is and what to do with it."""
    objective = bank.objective
    return (
        f"{len(bank)} vectors of norm R = {bank.radius:.4g} ({bank.radius / bank.mean_residual_norm:.3g} x the mean "
        f"residual norm), objective {float(objective.min()):.4g} to {float(objective.max()):.4g}\n"
        f"saved to {out}\n"
        f"  melbo show {shlex.quote(str(out))}\n"
        f"  melbo generate --bank {shlex.quote(str(out))} --vector 0 --scale 1"
    )
