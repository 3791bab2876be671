"""Regular expressions of task files, searched with a time limit: a pattern that backtracks without end stops nobody.

Python's `re` cannot be interrupted from another thread, so the search runs in a process of its own (Linux and macOS).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from melbo.errors import TaskError

SECONDS = 2.0
"""CPU time that one search may take."""
_WORKER = Path(__file__).with_name("pattern_worker.py")


def search_all(pairs: Sequence[tuple[str, str]], seconds: float = SECONDS) -> list[bool | None]:
    """Whether each (pattern, text) has a match; None where that took too long.

    A pattern that took too long once counts as too slow for all later texts of this call.

    Args:
        seconds: CPU time of one search, above 0.

    Raises:
        TaskError: a pattern is no regular expression, or no process can be started.
    """
    if not pairs:
        return []
    asked = json.dumps({"seconds": seconds, "pairs": [list(pair) for pair in pairs]})
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-S", str(_WORKER)], input=asked, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
        raise TaskError(f"the patterns cannot be searched: {' '.join(said)[:200]}.") from error
    found: list[bool | None] = json.loads(done.stdout)
    return found
