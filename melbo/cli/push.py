"""`melbo push`: a bank to the Hub, with the login that melbo/cli/pull.py names."""

from typing import Annotated

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import BankName, License, Private
from melbo.cli.common import plain
from melbo.publishing.publish import push_to_hub


def push(
    bank: BankName,
    repo: Annotated[str, typer.Argument(help="Repository on the Hub (user/bank); made if it is missing.")],
    private: Private = None,
    revision: Annotated[str | None, typer.Option(help="Branch, made if it is missing. Default: main")] = None,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    pull_request: Annotated[bool, typer.Option(help="Open a pull request instead of changing the branch.")] = False,
    license: License = None,
) -> None:
    """Upload a bank with its model card, in one commit."""
    pushed = push_to_hub(
        VectorBank.from_pretrained(bank),
        repo,
        private=private,
        revision=revision,
        commit_message=message,
        create_pr=pull_request,
        license=license,
    )
    typer.echo(f"pushed to {plain(pushed.pull_request or pushed.url)}\ncommit {plain(pushed.commit)}")
