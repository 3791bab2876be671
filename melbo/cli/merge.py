"""`melbo merge`: the vectors of several banks as one."""

from typing import Annotated

import typer

from melbo.bank import select
from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import NewFolder
from melbo.runs.files import check_new


def merge(
    banks: Annotated[list[str], typer.Argument(help="Folders or repositories of one model, layers and R.")],
    out: NewFolder,
) -> None:
    """Save the vectors of several banks as one bank."""
    check_new(out)
    merged = select.merge([VectorBank.from_pretrained(name) for name in banks])
    typer.echo(f"{len(merged)} vectors saved to {merged.save(out)}")
