"""`melbo card`: a bank's model card."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import BankName, License
from melbo.cli.common import plain
from melbo.errors import BankError
from melbo.publishing.card.render import render_card
from melbo.publishing.publish import save_with_card


def card(
    bank: BankName,
    repo: Annotated[str | None, typer.Option(help="Repository that the card's code loads from.")] = None,
    license: License = None,
    write: Annotated[bool, typer.Option(help="Write it to README.md in the bank's folder.")] = False,
) -> None:
    """Print a bank's model card, or write it beside the bank."""
    held = VectorBank.from_pretrained(bank)
    folder = held.source.folder if held.source else None
    if write:
        if not Path(bank).is_dir():
            raise BankError(f"{bank!r} is no folder; pull the bank first.")
        saved = save_with_card(held, bank, repo=repo, license=license) / "README.md"
        typer.echo(f"saved to {saved}")
        return
    typer.echo(plain(render_card(held, repo=repo, license=license, folder=folder)))
