"""`melbo select`: some vectors of a bank as a bank of their own."""

from typing import Annotated

import typer

from melbo.bank.select import choose
from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import BankName, NewFolder
from melbo.runs.files import check_new


def select(
    bank: BankName,
    out: NewFolder,
    vector: Annotated[list[int] | None, typer.Option(help="Number; may be given many times.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="All vectors with this tag; may be given many times.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="All with this label; may be given many times.")] = None,
) -> None:
    """Save some vectors of a bank as a bank of their own, which remembers where it came from."""
    check_new(out)
    held = VectorBank.from_pretrained(bank)
    chosen = choose(held, vector or (), tag or (), label or ())
    folder = held.select(chosen).save(out)
    typer.echo(f"vectors {', '.join(map(str, chosen))} saved to {folder}")
