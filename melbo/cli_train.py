"""`melbo train`: find a bank of steering vectors and save it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from melbo.bank import VectorBank, replaceable
from melbo.config import MAX_SEED, DiscoveryConfig, Method, RadiusUnit
from melbo.discover import discover
from melbo.errors import BankError
from melbo.models import ORGANISM, load_model
from melbo.prompts import BOMB, DEFAULT_SYSTEM, chat

_D = DiscoveryConfig()


def train(
    out: Annotated[Path, typer.Option(help="Folder for the bank.")],
    model: Annotated[str, typer.Option(help='Hub id, folder, or "organism", the embedded model.')] = ORGANISM,
    prompt: Annotated[list[str] | None, typer.Option(help=f"May be given many times. Default: {BOMB}")] = None,
    system: Annotated[str, typer.Option(help='System message; "" for none.')] = DEFAULT_SYSTEM,
    method: Annotated[Method, typer.Option(help='"random" is the control.')] = _D.method,
    n_vectors: Annotated[int, typer.Option(help="How many vectors to find.")] = _D.n_vectors,
    source_layer: Annotated[int | None, typer.Option(help="Steered block. Default: 0.25 of the depth.")] = None,
    target_layer: Annotated[int | None, typer.Option(help="Compared block. Default: 0.75 of the depth.")] = None,
    radius: Annotated[float, typer.Option(help="Norm R of each vector.")] = _D.radius,
    radius_unit: Annotated[
        RadiusUnit, typer.Option(help='"residual": multiples of the mean residual norm; "absolute": as it is.')
    ] = _D.radius_unit,
    power: Annotated[float, typer.Option(help="Exponent p of the objective.")] = _D.power,
    root: Annotated[float, typer.Option(help="Root q of the objective.")] = _D.root,
    target_tokens: Annotated[int, typer.Option(help="Last prompt tokens to compare.")] = _D.target_tokens,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = _D.steps,
    lr: Annotated[float, typer.Option(help="Step size in units of R.")] = _D.lr,
    orthogonal: Annotated[bool, typer.Option(help="Keep the vectors orthogonal.")] = _D.orthogonal,
    seed: Annotated[int, typer.Option(help="Seed of the starting points.", min=0, max=MAX_SEED)] = _D.seed,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help='"cpu", "cuda", ... Default: a GPU where there is one.')] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bank in the folder.")] = False,
) -> None:
    """Find steering vectors that change the model's activations most, and save them as a bank."""
    config = DiscoveryConfig(
        method=method, n_vectors=n_vectors, source_layer=source_layer, target_layer=target_layer, radius=radius,
        radius_unit=radius_unit, power=power, root=root, target_tokens=target_tokens, steps=steps, lr=lr,
        orthogonal=orthogonal, seed=seed,
    )  # fmt: skip
    check_out(out, force)
    loaded = load_model(model, dtype=dtype, device=device)
    config = config.resolve(loaded.n_layers, loaded.d_model)
    typer.echo(f"model {loaded.name}: {loaded.n_layers} blocks, d_model {loaded.d_model}, on {loaded.device}")
    typer.echo("\n".join(f"  {name} = {value}" for name, value in config.to_dict().items()))
    messages = [chat(text, system) for text in prompt or [BOMB]]
    total = config.steps if config.method == "melbo" else 0
    # no bar in a log file, nor for the control, which takes no steps
    with tqdm(total=total, unit="step", leave=False, disable=None if total else True) as bar:

        def show_progress(done: int, _total: int, objective: float) -> None:
            bar.set_postfix(objective=f"{objective:.4g}", refresh=False)
            bar.update(done - bar.n)

        bank = discover(loaded, config, messages, show_progress)
    bank.save(out)
    typer.echo(report(bank, out))


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
        f"  python -m melbo show {shlex.quote(str(out))}\n"
        f"  python -m melbo generate --bank {shlex.quote(str(out))} --vector 0 --scale 1"
    )
