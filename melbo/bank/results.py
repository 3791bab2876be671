"""Result files that lie beside a bank's vectors and travel with them: what `melbo inspect` measures of these vectors.

Each is JSON that names its format and, under "bank", the digest of the vectors that it is about. What is of other
vectors, too large or damaged counts as none. melbo/inspect/stored.py reads them in full.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from melbo.errors import BankError
from melbo.runs.files import read_json

ACTIVATING = "activating.json"
SAE = "sae.json"
LENS = "lens.json"
GEOMETRY = "geometry.json"
FORMATS = {
    ACTIVATING: "melbo-activating-1",
    SAE: "melbo-sae-comparison-1",
    LENS: "melbo-logit-lens-1",
    GEOMETRY: "melbo-geometry-1",
}
"""By file name, the format that it must state."""
MAX_RESULT_BYTES = 16 * 2**20
"""Of a file that is shown or handed on."""


def read_beside(folder: Path | None, name: str, digest: str) -> dict[str, Any] | None:
    """The object in one of the FORMATS' files, if it is about the vectors with this digest; its parts are not checked.

    A link is read, since the Hub's cache is made of them, but what it points to must be such a file itself.
    """
    path = None if folder is None else folder / name
    if path is None or not os.path.isfile(path):
        return None
    try:
        found = read_json(path) if path.stat().st_size <= MAX_RESULT_BYTES else None
    except (BankError, OSError):
        return None
    known = isinstance(found, dict) and found.get("format") == FORMATS[name] and found.get("bank") == digest
    return found if known else None
