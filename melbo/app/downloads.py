"""Files for visitors to download, in a temporary folder of this process where old ones are deleted."""

import re
import secrets
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from melbo.app.cache import FolderCache
from melbo.bank.facts import Source
from melbo.bank.vector_bank import VectorBank
from melbo.publishing.publish import save_with_card

KEPT_SECONDS = 600
"""How long a file waits to be fetched; gradio copies it to its own cache when the handler returns."""
_KINDS = (".json", ".safetensors", ".md", ".png")


class Downloads:
    """Files that wait to be downloaded, each in a folder of its own; the whole goes when the process ends."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._folders = FolderCache(KEPT_SECONDS, timer)

    def write(self, name: str, fill: Callable[[Path], object]) -> str:
        """Let `fill` write a file of this name, and return its path. Older files are deleted."""
        place = self._folders.folder(secrets.token_hex(8))
        try:
            fill(place / name)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return str(place / name)


def bank_name(bank: VectorBank) -> str:
    """A name for the bank's file: its source's, or "melbo-24-vectors"."""
    source = bank.source or Source()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (source.name or "").rsplit("/", 1)[-1]).strip("-.")[:60]
    return name or f"melbo-{len(bank)}-vectors"


def zip_bank(bank: VectorBank, path: Path) -> Path:
    """Write the bank's folder, with its card, as one zip: what `VectorBank.load` takes once it is unpacked."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        saved = save_with_card(bank, Path(folder) / bank_name(bank))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(p for p in saved.rglob("*") if p.is_file() and p.suffix in _KINDS):
                archive.write(file, f"{saved.name}/{file.relative_to(saved).as_posix()}")
    return path


def click_on(elem_id: str) -> str:
    """Script that clicks a hidden download button once it has its file."""
    return f"() => document.querySelector('#{elem_id}')?.click()"
