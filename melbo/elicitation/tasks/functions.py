"""Checker functions from a Python file that the user names; a task file can only refer to them."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Callable
from pathlib import Path

from melbo.errors import TaskError


def load_functions(path: str | Path) -> dict[str, Callable[[str], bool]]:
    """Run a Python file and return its public functions by name. For trusted files only: this runs them.

    Raises:
        TaskError: the file is missing, raises, or defines no public function.
    """
    path = Path(path)
    if not path.is_file():
        raise TaskError(f"there is no file {path} with checker functions.")
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise TaskError(f"the checkers in {path} cannot be loaded: {type(error).__name__}: {error}") from error
    found: dict[str, Callable[[str], bool]] = {
        n: f for n, f in names.items() if inspect.isfunction(f) and not n.startswith("_")
    }
    if not found:
        raise TaskError(f"{path} defines no function; write def name(answer): return True or False.")
    return found
