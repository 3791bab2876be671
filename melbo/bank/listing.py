"""An index of banks, in a folder and on the Hub, for people and the app to choose from."""

from dataclasses import dataclass
from pathlib import Path

from melbo.bank.facts import read_facts
from melbo.errors import BankError
from melbo.hub.client import TAG, list_models


@dataclass(frozen=True)
class BankInfo:
    """One bank, without its vectors. What a listing does not tell is None."""

    name: str
    """What VectorBank.from_pretrained takes: a folder, or a repository."""
    on_hub: bool
    base_model: str | None = None
    method: str | None = None
    n_vectors: int | None = None
    labels: tuple[str, ...] = ()
    """Labels of its vectors, each once, in order."""
    source_layer: int | None = None
    revision: str | None = None
    """Commit on the Hub."""
    downloads: int | None = None
    private: bool = False
    problem: str | None = None
    """Why the folder cannot be used; then the rest is unknown."""


def list_local(folder: str | Path) -> list[BankInfo]:
    """The banks that are `folder` itself or folders in it, by name; damaged ones with their problem."""
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return [_read(folder)]
    if not folder.is_dir():
        return []
    found = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [_read(path) for path in found if (path / "vectors.safetensors").is_file()]


def list_hub(
    *, tag: str = TAG, author: str | None = None, limit: int = 100, token: str | bool | None = None
) -> list[BankInfo]:
    """The banks on the Hub, most downloaded first, as far as their tags describe them.

    Args:
        author: only this user's or organisation's.

    Raises:
        HubError: the Hub cannot be reached.
    """
    rows = []
    for model in list_models(tag, author=author, limit=limit, token=token):
        bases = [t.rsplit(":", 1)[1] for t in model.tags if t.startswith("base_model:")]
        methods = [t.removeprefix("melbo-") for t in model.tags if t.startswith("melbo-")]
        rows.append(
            BankInfo(
                name=model.repo,
                on_hub=True,
                base_model=bases[0] if bases else None,
                method=methods[0] if methods else None,
                revision=model.revision,
                downloads=model.downloads,
                private=model.private,
            )
        )
    return rows


def _read(folder: Path) -> BankInfo:
    try:
        facts = read_facts(folder)
    except BankError as error:
        return BankInfo(str(folder), False, problem=str(error))
    labels = (note.label for note in facts.annotations if not note.is_dud)
    return BankInfo(
        name=str(folder),
        on_hub=False,
        base_model=facts.base_model.id,
        method=facts.config.method,
        n_vectors=facts.n_vectors,
        labels=tuple(dict.fromkeys(filter(None, labels))),
        source_layer=facts.config.source_layer,
        revision=facts.source.revision if facts.source else None,
    )
