"""Result files: JSON with a format name, written to a temporary name first, checked when read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from melbo.bank.files import parse_json, write_file
from melbo.errors import CorpusError

MAX_BYTES = 256 * 2**20


def write_result(path: Path, kind: str, value: dict[str, Any]) -> Path:
    """Write {"format": kind, **value}; ValueError where it holds NaN."""
    return write_file(path, json.dumps({"format": kind, **value}, ensure_ascii=False, allow_nan=False) + "\n")


def read_result(path: Path, kind: str) -> dict[str, Any]:
    """What `write_result` wrote.

    Raises:
        CorpusError: the file is missing, too large, no JSON, or of another format.
    """
    if not os.path.isfile(path):
        raise CorpusError(f"there is no file {path}; make it with `melbo inspect`.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES // 2**20} MiB")
        value = parse_json(path.read_bytes())
        if not isinstance(value, dict) or value.pop("format", None) != kind:
            raise ValueError("another format")
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"{path} is no {kind} file, or damaged ({str(error)[:200]}); delete it, or choose another."
        ) from error
    return value
