"""`melbo adapters`: find rank-1 adapters instead of vectors, and save them."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.adapter_bank import AdapterBank
from melbo.bank.adapter_config import AdapterConfig
from melbo.cli.arguments import ANYWHERE, Model, Prompts, System, Where
from melbo.cli.common import run_training, say, say_model
from melbo.cli.defaults import MODEL, PROMPT, SYSTEM
from melbo.cli.options import Fields
from melbo.discovery.adapters import discover_adapters
from melbo.prompts import chat
from melbo.runs.files import check_new

BASE = AdapterConfig()


def adapters(
    out: Annotated[Path, typer.Option(help="New folder for the adapters.")],
    model: Model = MODEL,
    prompt: Prompts = None,
    system: System = SYSTEM,
    config: Annotated[AdapterConfig, Fields()] = BASE,
    where: Where = ANYWHERE,
) -> None:
    """Find rank-1 adapters that change the model's activations most, and save them.

    Stopped or killed, the same command goes on from its last checkpoint and gives the same adapters.
    """
    check_new(out)
    loaded = where.load(model)
    config = config.resolve(loaded.n_layers, loaded.d_model)
    say_model(loaded)
    say("\n".join(f"  {name} = {value}" for name, value in asdict(config).items()))
    messages = [chat(text, system) for text in prompt or [PROMPT]]
    run_training(
        lambda progress, checkpoint: discover_adapters(loaded, config, messages, progress, checkpoint),
        report,
        out,
        config.steps,
    )


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
