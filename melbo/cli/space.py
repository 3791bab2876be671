"""`melbo space`: a Space that shows a bank."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import Private, Revision
from melbo.cli.common import plain
from melbo.hub.client import push_files
from melbo.publishing.space.write import PATTERNS, fill_space, write_space


def space(
    repo: Annotated[str, typer.Argument(help="Repository of the Space (user/space).")],
    bank: Annotated[str, typer.Option(help="Repository of the bank (user/bank).")],
    revision: Revision = None,
    private: Private = None,
    out: Annotated[Path | None, typer.Option(help="Write it to this new folder instead of uploading it.")] = None,
) -> None:
    """Make a Space that shows a bank in the app, with the bank's present commit."""
    held = VectorBank.from_pretrained(bank, revision=revision)
    if out is not None:
        typer.echo(f"saved to {write_space(out, held, repo)}")
        return
    pushed = push_files(
        lambda path: fill_space(path, held, repo),
        repo,
        PATTERNS,
        private=private,
        message="Show steering vectors",
        repo_type="space",
    )
    typer.echo(f"pushed to {plain(pushed.url)}")
