"""Read IBM activation-steering's .svec (see writers/arrays.py): its layer L is the output of our block L - 1."""

import json
import math
from array import array
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.errors import BankError

MAX_BYTES = 2**25
MAX_LAYER = 10_000
MAX_PARTS = 2000
"""Most brackets and quotes: a short list or text takes far more memory than it takes in the file."""


def read_svec(path: Path) -> dict[int | None, Tensor]:
    """Directions [1, d_model] by the block whose output they are added to.

    Raises:
        BankError: the file is damaged, or only holds a direction for the input of block 0.
    """
    if path.stat().st_size > MAX_BYTES:
        raise BankError(f"{path} is larger than {MAX_BYTES // 2**20} MiB; a .svec file is smaller.")
    try:
        text = path.read_text(encoding="utf-8")
        if sum(text.count(mark) for mark in '[{"') > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS} lists, objects and quotes")
        if text.count(",") > len(text) // 8 + 2**16:
            raise ValueError("it holds far more numbers than text")
        raw = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique)
        return _directions(raw)
    except (ValueError, OverflowError, RecursionError) as error:
        raise BankError(f"{path} is not a readable .svec file: {str(error)[:200]}.") from error


def _directions(raw: Any) -> dict[int | None, Tensor]:
    directions = raw.get("directions") if isinstance(raw, dict) else None
    if not isinstance(directions, dict) or not directions:
        raise ValueError('it has no object "directions" with vectors by layer')
    found: dict[int | None, Tensor] = {}
    for key, values in directions.items():
        if not (key.isascii() and key.isdigit() and len(key) < 6 and int(key) <= MAX_LAYER):
            raise ValueError(f"layer {key[:60]!r} is not a whole number from 0")
        if not isinstance(values, list) or not values or not all(type(v) in (int, float) for v in values):
            raise ValueError(f"direction {key} is not a list of numbers")
        if int(key) > 0:  # the input of block 0 is no block's output
            found[int(key) - 1] = torch.frombuffer(array("d", values), dtype=torch.float64).to(torch.float32)[None]
    if not found:
        raise ValueError("its only direction is added to the input of block 0, before any block's output")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:30]} is not finite")
    return value


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")
