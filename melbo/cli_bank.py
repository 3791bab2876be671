"""`melbo show`: what a bank holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank import VectorBank
from melbo.cli_common import plain


def show(bank: Annotated[Path, typer.Argument(help="Folder of the bank.")]) -> None:
    """Print a bank's settings and its vectors."""
    typer.echo(table(VectorBank.load(bank)))


def table(bank: VectorBank) -> str:
    """Head lines and one line per vector: index, label, objective."""
    lines = [
        f"{len(bank)} vectors ({bank.config.method}) for {plain(bank.base_model.id)}, "
        f"source layer {bank.config.source_layer}, target layer {bank.config.target_layer}, "
        f"R = {bank.radius:.4g} ({bank.radius / bank.mean_residual_norm:.3g} x the mean residual norm)",
        *(f"prompt: {' '.join(plain(p[-1]['content']).split())}" for p in bank.prompts if p),
        "",
    ]
    labels = [" ".join(plain(bank.label(i)).split()) for i in range(len(bank))]
    width = max(len("label"), *map(len, labels))
    lines.append(f"{'index':>5}  {'label':<{width}}  {'objective':>9}")
    for index, label in enumerate(labels):
        lines.append(f"{index:>5}  {label:<{width}}  {float(bank.objective[index]):>9.4g}")
    return "\n".join(lines)
