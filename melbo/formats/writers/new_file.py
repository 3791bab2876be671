"""Write one new file under a temporary name and rename it, so that nothing is left half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from melbo.errors import ExportError


def write_new(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, then give it its name.

    Raises:
        ExportError: there is something at `path` already.
    """
    path = Path(path).absolute()
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    return path


def check_free(path: Path) -> None:
    """Raise ExportError if there is something at `path`."""
    if path.exists() or path.is_symlink():
        raise ExportError(f"{path} exists; choose a new name, or delete it first.")
