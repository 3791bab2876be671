"""Exports make new files: nothing is overwritten, and nothing is left half-written."""

from collections.abc import Callable
from pathlib import Path

from melbo.errors import ExportError
from melbo.runs.files import fill_file


def write_new(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a new file, which everybody may read.

    Raises:
        ExportError: there is something at `path` already.
    """
    path = Path(path).absolute()
    check_free(path)
    fill_file(path, write).chmod(0o644)
    return path


def check_free(path: Path) -> None:
    """Raise ExportError if there is something at `path`."""
    if path.exists() or path.is_symlink():
        raise ExportError(f"{path} exists; choose a new name, or delete it first.")
