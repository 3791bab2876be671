"""Result files: JSON with a format name, written to a temporary name first, checked when read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from melbo.bank.vector_bank import BaseModel
from melbo.errors import CorpusError, MelboError
from melbo.runs.files import parse_json, write_file

MAX_BYTES = 256 * 2**20
T = TypeVar("T")


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


@contextmanager
def checked(path: Path) -> Iterator[None]:
    """Within the block, whatever parts of a file's value are missing or of another kind become one CorpusError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError, MelboError) as error:
        reason = " ".join(repr(error).split())[:200]
        raise CorpusError(f"{path} is damaged ({reason}); make it again with `melbo inspect`.") from error


def number(value: Any) -> float:
    """A JSON number as a float; TypeError for all else, such as the text "nan"."""
    if type(value) not in (int, float):
        raise TypeError(f"{repr(value)[:60]} is no number")
    return float(value)


def whole(value: Any, least: int = 0) -> int:
    """A JSON whole number of at least `least`; TypeError or ValueError for all else."""
    if type(value) is not int:
        raise TypeError(f"{repr(value)[:60]} is no whole number")
    if value < least:
        raise ValueError(f"{value} is less than {least}")
    return value


def text(value: Any) -> str:
    """A JSON text; TypeError for all else."""
    if not isinstance(value, str):
        raise TypeError(f"{repr(value)[:60]} is no text")
    return value


def items(value: Any, read: Callable[[Any], T]) -> tuple[T, ...]:
    """A JSON list, each item read; TypeError for all else."""
    if not isinstance(value, list):
        raise TypeError(f"{repr(value)[:60]} is no list")
    return tuple(read(item) for item in value)


def base_model(value: Any) -> BaseModel:
    """The model that a result is about."""
    revision = value["revision"]
    return BaseModel(
        text(value["id"]), None if revision is None else text(revision), whole(value["d_model"], 1),
        whole(value["n_layers"], 1),
    )  # fmt: skip
