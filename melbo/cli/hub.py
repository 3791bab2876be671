"""`melbo pull | push | card | space | select | merge`: banks to and from the Hub, and curated banks.

Private repositories open with the token of `hf auth login` or HF_TOKEN; no command takes one, since other users of a
machine see its command lines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank import select as curate
from melbo.bank.listing import BankInfo, list_hub, list_local
from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import plain
from melbo.errors import BankError
from melbo.runs.files import check_new

BankName = Annotated[str, typer.Argument(help="Folder, or repository on the Hub (user/bank).")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
License = Annotated[str | None, typer.Option(help="The Hub's licence identifier. Default: apache-2.0")]
Private = Annotated[bool | None, typer.Option(help="For a new repository. Default: as the account is set.")]


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
    pushed = VectorBank.from_pretrained(bank).push_to_hub(
        repo, private=private, revision=revision, commit_message=message, create_pr=pull_request, license=license
    )
    typer.echo(f"pushed to {plain(pushed.pull_request or pushed.url)}\ncommit {plain(pushed.commit)}")


def card(
    bank: BankName,
    repo: Annotated[str | None, typer.Option(help="Repository that the card's code loads from.")] = None,
    license: License = None,
    write: Annotated[bool, typer.Option(help="Write it to README.md in the bank's folder.")] = False,
) -> None:
    """Print a bank's model card, or write it beside the bank."""
    from melbo.publishing.card.render import render_card

    held = VectorBank.from_pretrained(bank)
    folder = held.source.folder if held.source else None
    if write:
        if not Path(bank).is_dir():
            raise BankError(f"{bank!r} is no folder; pull the bank first.")
        saved = held.save_pretrained(bank, repo=repo, license=license) / "README.md"
        typer.echo(f"saved to {saved}")
        return
    typer.echo(plain(render_card(held, repo=repo, license=license, folder=folder)))


def space(
    repo: Annotated[str, typer.Argument(help="Repository of the Space (user/space).")],
    bank: Annotated[str, typer.Option(help="Repository of the bank (user/bank).")],
    revision: Revision = None,
    private: Private = None,
    out: Annotated[Path | None, typer.Option(help="Write it to this new folder instead of uploading it.")] = None,
) -> None:
    """Make a Space that shows a bank in the app, with the bank's present commit."""
    from melbo.hub.client import push_files
    from melbo.publishing.space.write import PATTERNS, fill_space, write_space

    held = VectorBank.from_pretrained(bank, revision=revision)
    if out is not None:
        typer.echo(f"saved to {write_space(out, held, repo)}")
        return
    pushed = push_files(
        lambda path: fill_space(path, held, repo), repo, PATTERNS, private=private, message="Show steering vectors",
        repo_type="space",
    )  # fmt: skip
    typer.echo(f"pushed to {plain(pushed.url)}")


def select(
    bank: BankName,
    out: Annotated[Path, typer.Option(help="New folder.")],
    vector: Annotated[list[int] | None, typer.Option(help="Number; may be given many times.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="All vectors with this tag; may be given many times.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="All with this label; may be given many times.")] = None,
) -> None:
    """Save some vectors of a bank as a bank of their own, which remembers where it came from."""
    check_new(out)
    held = VectorBank.from_pretrained(bank)
    chosen = curate.choose(held, vector or (), tag or (), label or ())
    folder = held.select(chosen).save(out)
    typer.echo(f"vectors {', '.join(map(str, chosen))} saved to {folder}")


def merge(
    banks: Annotated[list[str], typer.Argument(help="Folders or repositories of one model, layers and R.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
) -> None:
    """Save the vectors of several banks as one bank."""
    check_new(out)
    merged = curate.merge([VectorBank.from_pretrained(name) for name in banks])
    typer.echo(f"{len(merged)} vectors saved to {merged.save(out)}")


def banks(
    folder: Annotated[Path, typer.Argument(help="Folder that holds banks.")] = Path("vectors"),
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
