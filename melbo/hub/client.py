"""The Hugging Face Hub: download, upload, list. The one file that speaks to its write and list API; it knows no bank.

Endpoint, cache and token are huggingface_hub's own: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN or `hf auth login`.
A token that is passed here goes to that library only; it is in no message, no result and no log of ours.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from melbo.errors import HubError
from melbo.hub.errors import attempt, short

TAG = "melbo"
"""Tag of every bank on the Hub."""


@dataclass(frozen=True)
class Pushed:
    """What an upload made."""

    repo: str
    commit: str
    """40 hexadecimal digits."""
    url: str
    """Page of the commit."""
    pull_request: str | None
    """Page of the pull request, if one was opened."""


@dataclass(frozen=True)
class HubModel:
    """One row of a listing."""

    repo: str
    revision: str | None
    tags: tuple[str, ...]
    downloads: int
    likes: int
    private: bool


def check_repo(repo: str) -> None:
    """Raise HubError unless `repo` is a name that the Hub allows, with its owner: "user/bank"."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no name of a repository: {short(error)} Write it as user/name.") from error
    if "/" not in repo:
        raise HubError(f"{repo!r} names no owner; write it as user/name.")


def download(
    repo: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> tuple[Path, str]:
    """Download these files of a model repository, as far as it has them, or find them in the cache.

    Where the Hub cannot be reached, the cached commit of the branch is used.

    Returns:
        The folder that holds them, not to be written to, and the commit.

    Raises:
        HubError: the name, revision or access is wrong, or the Hub cannot be reached and the cache lacks a file.
    """
    check_repo(repo)

    def fetch() -> str:
        return snapshot_download(
            repo, revision=revision, token=token, local_files_only=local_files_only, allow_patterns=list(files)
        )

    folder = Path(attempt(fetch, repo, token, revision))
    return folder, folder.name


def push_files(
    write: Callable[[Path], None],
    repo: str,
    files: Sequence[str],
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str,
    create_pr: bool = False,
    token: str | bool | None = None,
    repo_type: Literal["model", "space"] = "model",
) -> Pushed:
    """Let `write` fill a temporary folder, and upload it in one commit.

    Args:
        files: patterns of what belongs to us: only these are uploaded, and those not written are deleted there.
        private: for a new repository; an existing public one is then refused. None: the account's default.
        revision: branch, made where it is missing; None: main.
        create_pr: open a pull request instead of changing the branch.

    Raises:
        HubError: the name is not allowed, access is refused, or the Hub cannot be reached.
    """
    check_repo(repo)
    if create_pr and revision not in (None, constants.DEFAULT_REVISION):
        raise HubError(f"a pull request goes to main, not to {revision!r}; leave the revision out.")
    branch = None if create_pr else revision
    api = HfApi(token=token, library_name="melbo")
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))

        def upload() -> Any:
            operations = _operations(api, Path(name), repo, repo_type, files, branch)
            return api.create_commit(
                repo, operations, commit_message=message, revision=branch, create_pr=create_pr, repo_type=repo_type
            )

        attempt(lambda: _create(api, repo, repo_type, private, branch), repo, token, None)
        made = attempt(upload, repo, token, revision, once=create_pr)  # a second attempt may open a second request
    return Pushed(repo, made.oid, str(made.commit_url), made.pr_url)


def list_models(
    tag: str = TAG, *, author: str | None = None, limit: int = 100, token: str | bool | None = None
) -> list[HubModel]:
    """Model repositories with this tag, most downloaded first.

    Raises:
        HubError: the Hub cannot be reached.
    """

    def fetch() -> list[HubModel]:
        found = HfApi(token=token).list_models(filter=tag, author=author, limit=limit, sort="downloads")
        return [
            HubModel(m.id, m.sha, tuple(m.tags or ()), m.downloads or 0, m.likes or 0, bool(m.private)) for m in found
        ]

    return attempt(fetch, tag, token, None)


def _create(api: HfApi, repo: str, repo_type: str, private: bool | None, branch: str | None) -> None:
    """The repository and the branch, where they are missing."""
    sdk = "gradio" if repo_type == "space" else None
    api.create_repo(repo, private=private, exist_ok=True, repo_type=repo_type, space_sdk=sdk)
    if private and not api.repo_info(repo, repo_type=repo_type).private:
        raise HubError(f"{repo!r} exists and is public; choose another name, or make it private on its page.")
    if branch is not None:
        api.create_branch(repo, branch=branch, exist_ok=True, repo_type=repo_type)


def _operations(
    api: HfApi, folder: Path, repo: str, repo_type: str, files: Sequence[str], revision: str | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Of what matches `files`: add all that is in `folder`, delete what is at the Hub only.

    One commit of these is made whole or not at all; `upload_folder` may split it.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    written = {path.relative_to(folder).as_posix(): path for path in paths}
    added = {name: written[name] for name in filter_repo_objects(written, allow_patterns=list(files))}
    held = api.list_repo_files(repo, repo_type=repo_type, revision=revision)
    gone = [name for name in filter_repo_objects(held, allow_patterns=list(files)) if name not in added]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationDelete(name) for name in gone]
    return operations + [CommitOperationAdd(name, path) for name, path in added.items()]
