"""Saving a bank: which files it has, and what stays beside them. The card is rendered where a bank is published."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from melbo.bank.annotation import write_annotation
from melbo.bank.facts import FORMAT, config_file
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
"""Of a card that melbo wrote; one that a person wrote lacks it."""
_TENSORS = ("vectors", "objective", "output_directions")
_PLOT = ("sweep.svg",)
"""Made with a sweep, but not part of the format."""
_MAX_CARD = 4 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"


def save_bank(
    bank: VectorBank, folder: str | Path, home: str | None = None, finish: Callable[[Path], object] | None = None
) -> Path:
    """VectorBank.save.

    Args:
        home: repository that the bank will be in, which it then does not name as its source.
        finish: called with the folder that holds all files, before it takes the old one's place.

    Raises:
        BankError: the folder holds files and is no bank.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not replaceable(folder):
        raise BankError(f"{folder} holds other files and is not a bank; choose a new folder.")

    def write(path: Path) -> None:
        if folder.exists():
            _copy_others(folder, path)
        write_bank(bank, path, home, old=folder)
        if finish is not None:
            finish(path)

    return replace_folder(folder, write)


def replaceable(folder: Path) -> bool:
    """Whether `folder` is an empty folder or a bank, also a damaged one."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        return bool(read_json(folder / "config.json").get("format") == FORMAT)
    except (BankError, AttributeError):
        return (folder / "vectors.safetensors").exists()


def write_bank(bank: VectorBank, folder: Path, home: str | None = None, *, old: Path | None = None) -> None:
    """Write the bank's files to `folder`, with the sweep, the results and the card beside the same vectors elsewhere.

    Args:
        home: as in `save_bank`.
        old: folder that this one will replace; a card that a person wrote there stays in any case.
    """
    write_json(folder / "config.json", config_file(bank, len(bank), home))
    tensors = {name: getattr(bank, name) for name in _TENSORS}
    write_tensors(folder / "vectors.safetensors", tensors | ({} if bank.score is None else {"score": bank.score}))
    if bank.annotations:
        write_json(folder / "annotations.json", [write_annotation(note) for note in bank.annotations])
    places = [place for place in (old, bank.source.folder if bank.source else None) if place is not None]
    same = next((p for p in places if _same_vectors(p, folder)), None)
    if same is not None:
        _copy_sweep(same, folder)
    _copy_results(bank, places, folder)
    cards = [(place, None if place is None else read_card(place)) for place in (same, old)]
    kept = [text for place, text in cards if text is not None and (place == same or CARD_MARK not in text)]
    if kept:
        (folder / "README.md").write_text(kept[0], encoding="utf-8")


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


def read_card(folder: Path) -> str | None:
    """README.md beside a bank; None where there is none, or it is too large or no text."""
    path = folder / "README.md"
    try:
        return path.read_text(encoding="utf-8") if path.is_file() and path.stat().st_size <= _MAX_CARD else None
    except (OSError, UnicodeDecodeError):
        return None
