"""`melbo adapters` and `melbo export-peft`: find rank-1 adapters, and hand one to PEFT."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.adapter_bank import AdapterBank, check_new
from melbo.bank.adapter_config import AdapterConfig, AdapterKind, AdapterRadiusUnit
from melbo.cli.common import Blocks, Device, Dtype, run_and_save, say
from melbo.config import MAX_SEED
from melbo.discovery.adapters import discover_adapters
from melbo.formats.writers.peft import export_peft
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from melbo.prompts import BOMB, DEFAULT_SYSTEM, chat

_D = AdapterConfig()


def adapters(
    out: Annotated[Path, typer.Option(help="New folder for the adapters.")],
    model: Annotated[str, typer.Option(help='Hub id, folder, or "organism", the embedded model.')] = ORGANISM,
    prompt: Annotated[list[str] | None, typer.Option(help=f"May be given many times. Default: {BOMB}")] = None,
    system: Annotated[str, typer.Option(help='System message; "" for none.')] = DEFAULT_SYSTEM,
    kind: Annotated[AdapterKind, typer.Option(help="Which out-projection of a block is adapted.")] = _D.kind,
    n_adapters: Annotated[int, typer.Option(help="How many adapters to find.")] = _D.n_adapters,
    first_layer: Annotated[int | None, typer.Option(help="First adapted block. Default: 0.25 of the depth.")] = None,
    last_layer: Annotated[int | None, typer.Option(help="Last adapted block. Default: before the target.")] = None,
    target_layer: Annotated[int | None, typer.Option(help="Compared block. Default: 0.75 of the depth.")] = None,
    radius: Annotated[float, typer.Option(help="Norm R of an adapter's b over all blocks.")] = _D.radius,
    radius_unit: Annotated[
        AdapterRadiusUnit, typer.Option(help='"residual": what it writes, in residual norms; "absolute": as it is.')
    ] = _D.radius_unit,
    target_tokens: Annotated[int, typer.Option(help="Last prompt tokens to compare.")] = _D.target_tokens,
    steps: Annotated[int, typer.Option(help="Iterations.")] = _D.steps,
    orthogonal: Annotated[bool, typer.Option(help="Keep the adapters' b orthogonal.")] = _D.orthogonal,
    seed: Annotated[int, typer.Option(help="Seed of the starting points.", min=0, max=MAX_SEED)] = _D.seed,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Find rank-1 adapters that change the model's activations most, and save them.

    Stopped or killed, the same command goes on from its last checkpoint and gives the same adapters.
    """
    config = AdapterConfig(
        n_adapters=n_adapters, kind=kind, first_layer=first_layer, last_layer=last_layer, target_layer=target_layer,
        radius=radius, radius_unit=radius_unit, target_tokens=target_tokens, steps=steps, orthogonal=orthogonal,
        seed=seed,
    )  # fmt: skip
    check_new(out)
    loaded = load_model(model, dtype=dtype, device=device, blocks=blocks)
    config = config.resolve(loaded.n_layers, loaded.d_model)
    say(f"model {loaded.name}: {loaded.n_layers} blocks, d_model {loaded.d_model}, on {loaded.device}")
    say("\n".join(f"  {name} = {value}" for name, value in asdict(config).items()))
    messages = [chat(text, system) for text in prompt or [BOMB]]
    run_and_save(
        lambda progress, checkpoint: discover_adapters(loaded, config, messages, progress, checkpoint),
        report,
        out,
        config.steps,
    )


def export_adapter(
    bank: Annotated[Path, typer.Argument(help="Folder of the adapters.")],
    adapter: Annotated[int, typer.Argument(help="Which of them.")],
    out: Annotated[Path, typer.Option(help="New folder for PEFT.")],
    scale: Annotated[float, typer.Option(help="Multiplies the adapter; may be negative.")] = 1.0,
) -> None:
    """Write one adapter as a folder that peft.PeftModel.from_pretrained loads."""
    folder = export_peft(AdapterBank.load(bank), adapter, out, scale)
    typer.echo(f"saved to {folder}")


def report(bank: AdapterBank, out: Path) -> str:
    """Where the adapters are, how they compare with random ones, and what to do with them."""
    found, random = bank.objective, bank.random_objective
    first, last = bank.config.first_layer, bank.config.last_layer
    return (
        f"{len(bank)} {bank.config.kind} adapters on blocks {first} to {last}, R = {bank.radius:.4g}, objective "
        f"{float(found.min()):.4g} to {float(found.max()):.4g}; random adapters of the same norms: "
        f"{float(random.min()):.4g} to {float(random.max()):.4g}\n"
        f"saved to {out}\n"
        f"  melbo export-peft {shlex.quote(str(out))} 0 --out adapter-0"
    )
