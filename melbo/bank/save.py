"""Saving a bank: which files it has, what stays beside them, and when the card is rendered anew."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from melbo.bank.annotation import write_annotation
from melbo.bank.header import FORMAT, FORMAT_VERSION, Source, replaceable
from melbo.bank.result_file import FORMATS, find_result
from melbo.errors import BankError
from melbo.runs.files import read_json, replace_folder, write_json, write_tensors

if TYPE_CHECKING:
    from melbo.bank.vector_bank import VectorBank

FILES = (
    "config.json", "vectors.safetensors", "annotations.json", "sweep.json", "sweep.png", *FORMATS, "README.md"
)  # fmt: skip
"""All that a bank may hold; nothing else is downloaded or uploaded."""
SWEEP_FORMAT = "melbo-sweep"
CARD_MARK = "<!-- This card was written by melbo from the files beside it. -->"
"""Of a card that melbo may write anew; one that a person wrote lacks it."""
_TENSORS = ("vectors", "objective", "output_directions")
_PLOT = ("sweep.svg",)
"""Made with a sweep, but not part of the format."""
_MAX_CARD = 4 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"


def save_bank(
    bank: VectorBank, folder: str | Path, *, card: bool = False, repo: str | None = None, license: str | None = None
) -> Path:
    """VectorBank.save, and with `card` VectorBank.save_pretrained.

    Raises:
        BankError: the folder holds files and is no bank.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not replaceable(folder):
        raise BankError(f"{folder} holds other files and is not a bank; choose a new folder.")

    def write(path: Path) -> None:
        if folder.exists():
            _copy_others(folder, path)
        write_bank(bank, path, old=folder, card=card, repo=repo, license=license)

    return replace_folder(folder, write)


def write_bank(
    bank: VectorBank,
    folder: Path,
    *,
    old: Path | None = None,
    card: bool = False,
    repo: str | None = None,
    license: str | None = None,
) -> None:
    """Write the bank's files to `folder`, with the sweep, the results and the card beside the same vectors elsewhere.

    Args:
        old: folder that this one will replace.
        card: render the card anew in any case.
        repo: repository that the bank will be in.
        license: for the card; None: that of the old card, or else the default.
    """
    _write_config(bank, folder / "config.json", repo)
    tensors = {name: getattr(bank, name) for name in _TENSORS}
    write_tensors(folder / "vectors.safetensors", tensors | ({} if bank.score is None else {"score": bank.score}))
    if bank.annotations:
        write_json(folder / "annotations.json", [write_annotation(note) for note in bank.annotations])
    places = [place for place in (old, bank.source.folder if bank.source else None) if place is not None]
    same = next((p for p in places if _same_vectors(p, folder)), None)
    if same is not None:
        _copy_sweep(same, folder)
    _copy_results(bank, places, folder)
    readme = None if same is None else _text(same / "README.md")
    if readme is not None and CARD_MARK not in readme and not card:
        (folder / "README.md").write_text(readme, encoding="utf-8")
    elif card or any((p / "README.md").exists() for p in places):
        from melbo.publishing.card.metadata import LICENSES
        from melbo.publishing.card.render import render_card

        repo = repo or (bank.source.repo if bank.source else None)
        stated = _license(readme)
        text = render_card(bank, repo=repo, license=license or (stated if stated in LICENSES else None), folder=folder)
        (folder / "README.md").write_text(text, encoding="utf-8")


def _write_config(bank: VectorBank, path: Path, repo: str | None) -> None:
    source = bank.source or Source()
    came_from = {"repo": source.repo, "revision": source.revision} if source.repo not in (None, repo) else None
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "base_model": asdict(bank.base_model),
        "method": bank.config.method,
        "config": bank.config.to_dict(),
        "n_vectors": len(bank),
        "radius": bank.radius,
        "mean_residual_norm": bank.mean_residual_norm,
        "prompts": [list(p) for p in bank.prompts],
        "seed": bank.config.seed,
        "versions": bank.versions,
        "created": bank.created,
        "details": bank.details,
    }
    write_json(path, config | ({"source": came_from} if came_from else {}))


def _same_vectors(a: Path, b: Path) -> bool:
    first, second = a / "vectors.safetensors", b / "vectors.safetensors"
    return first.is_file() and filecmp.cmp(first, second, shallow=False)


def _copy_others(old: Path, new: Path) -> None:
    """What others put beside the bank."""
    for extra in old.iterdir():
        if extra.name in (*FILES, *_PLOT):
            continue
        if extra.is_dir() and not extra.is_symlink():
            shutil.copytree(extra, new / extra.name, symlinks=True)
        else:
            shutil.copy2(extra, new / extra.name, follow_symlinks=False)


def _copy_sweep(old: Path, new: Path) -> None:
    """The sweep's files, if they are what their names say: a link to another file is not handed on."""
    try:
        sweep = read_json(old / "sweep.json")
    except BankError:
        return
    if not isinstance(sweep, dict) or sweep.get("format") != SWEEP_FORMAT:
        return
    shutil.copyfile(old / "sweep.json", new / "sweep.json")
    plot = old / "sweep.png"
    if plot.is_file() and _starts(plot, _PNG):
        shutil.copyfile(plot, new / "sweep.png")
    for name in _PLOT:
        if (old / name).is_file() and not (old / name).is_symlink():
            shutil.copyfile(old / name, new / name)


def _copy_results(bank: VectorBank, places: Sequence[Path], new: Path) -> None:
    """What `melbo inspect` measured of these very vectors, from the first place that has it."""
    for name in FORMATS:
        old = next(filter(None, (find_result(place, name, bank.digest) for place in places)), None)
        if old is not None:
            shutil.copyfile(old, new / name)


def _starts(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() and path.stat().st_size <= _MAX_CARD else None
    except (OSError, UnicodeDecodeError):
        return None


def _license(card: str | None) -> str | None:
    """The licence that a card's front matter names."""
    lines: Iterable[str] = (card or "").split("\n---", 1)[0].splitlines()
    found = (re.fullmatch(r"license: ([a-z0-9.+-]+)", line) for line in lines)
    return next((match[1] for match in found if match), None)
