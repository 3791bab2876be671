"""A bank with its card: saved to a folder, or uploaded to the Hub."""

import re
from collections.abc import Iterable
from pathlib import Path

from melbo.bank.save import FILES, read_card, save_bank, write_bank
from melbo.bank.vector_bank import VectorBank
from melbo.hub.client import Pushed, push_files
from melbo.publishing.card.metadata import LICENSES
from melbo.publishing.card.render import render_card


def save_with_card(
    bank: VectorBank, folder: str | Path, *, repo: str | None = None, license: str | None = None
) -> Path:
    """`bank.save`, with a newly rendered model card: the folder is what `push_to_hub` uploads.

    Args:
        repo: repository that the card's code loads from.
        license: the Hub's licence identifier; None: that of the card beside these vectors, or else apache-2.0.

    Raises:
        BankError: the folder holds other files.
        HubError: the licence or repository is none of the Hub's.
    """
    return save_bank(bank, folder, repo, lambda path: _write_card(bank, path, repo, license))


def push_to_hub(
    bank: VectorBank,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    license: str | None = None,
) -> Pushed:
    """Upload what `save_with_card` writes, in one commit; makes the repository and the branch where missing.

    Args:
        private: for a new repository; None: the account's default.
        revision: branch; None: main.
        create_pr: open a pull request instead of changing the branch.
        license: as in `save_with_card`.

    Raises:
        HubError: the name is not allowed, access is refused, or the Hub cannot be reached.
    """

    def write(path: Path) -> None:
        write_bank(bank, path, repo)
        _write_card(bank, path, repo, license)

    return push_files(
        write,
        repo,
        FILES,
        private=private,
        revision=revision,
        message=commit_message or "Upload steering vectors",
        create_pr=create_pr,
        token=token,
    )


def _write_card(bank: VectorBank, folder: Path, repo: str | None, license: str | None) -> None:
    """Render the card of the bank whose files lie in `folder`, in the place of the one that lies there."""
    stated = _license(read_card(folder))
    repo = repo or (bank.source.repo if bank.source else None)
    text = render_card(bank, repo=repo, license=license or (stated if stated in LICENSES else None), folder=folder)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _license(card: str | None) -> str | None:
    """The licence that a card's front matter names."""
    lines: Iterable[str] = (card or "").split("\n---", 1)[0].splitlines()
    found = (re.fullmatch(r"license: ([a-z0-9.+-]+)", line) for line in lines)
    return next((match[1] for match in found if match), None)
