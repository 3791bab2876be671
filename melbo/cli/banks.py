"""`melbo banks`: the banks in a folder, or those on the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.listing import BankInfo, list_hub, list_local
from melbo.cli.common import plain
from melbo.cli.defaults import BANKS


def banks(
    folder: Annotated[Path, typer.Argument(help="Folder that holds banks.")] = BANKS,
    hub: Annotated[bool, typer.Option("--hub", help="List those on the Hub instead.")] = False,
    author: Annotated[str | None, typer.Option(help="On the Hub: only of this user or organisation.")] = None,
) -> None:
    """List the banks in a folder, or those on the Hub."""
    rows = list_hub(author=author) if hub else list_local(folder)
    typer.echo("\n".join(map(_line, rows)) if rows else "no bank was found")


def _line(info: BankInfo) -> str:
    if info.problem:
        return f"{plain(info.name)}  cannot be used: {plain(info.problem)}"
    facts = [f"{info.n_vectors} vectors" if info.n_vectors else "", info.method or "", info.base_model or ""]
    labels = ", ".join(info.labels[:8])
    return plain("  ".join(part for part in (info.name, *facts, labels) if part)).replace("\n", " ")
