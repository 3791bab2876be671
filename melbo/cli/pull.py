"""`melbo pull`: a bank from the Hub.

Private repositories open with the token of `hf auth login` or HF_TOKEN; no command takes one, since other users of a
machine see its command lines.
"""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import Revision
from melbo.cli.common import plain


def pull(
    repo: Annotated[str, typer.Argument(help="Repository on the Hub (user/bank).")],
    out: Annotated[Path, typer.Option(help="Folder for the bank: new, or a bank to replace.")],
    revision: Revision = None,
    offline: Annotated[bool, typer.Option(help="Use what was downloaded before.")] = False,
) -> None:
    """Download a bank and save it with its sweep and card; the folder remembers where it came from."""
    bank = VectorBank.from_pretrained(repo, revision=revision, local_files_only=offline)
    folder = bank.save(out)
    commit = bank.source.revision if bank.source else None
    typer.echo(f"{len(bank)} vectors from {plain(repo)} at {commit or 'no commit'}, saved to {folder}")
