"""Read a .safetensors file that holds the tensor "vectors" (ours, or a bank's) or only one tensor."""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from melbo.errors import BankError
from melbo.formats.writers.arrays import KEY

_DTYPES = ("F64", "F32", "F16", "BF16")
MAX_LAYER = 10_000


def read_safetensors(path: Path) -> dict[int | None, Tensor]:
    """The tensor as [n, d_model], by the source layer that our metadata names, if any.

    Raises:
        BankError: the file is damaged, holds several tensors of which none is "vectors", or no floats.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            name = "vectors" if "vectors" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise BankError(f'{path} holds {len(names)} tensors, none of them named "vectors".')
            part = file.get_slice(name)
            shape = part.get_shape()
            if part.get_dtype() not in _DTYPES or len(shape) not in (1, 2) or not math.prod(shape):
                raise BankError(f"{path}: {name[:60]} is {part.get_dtype()} {shape}; expected floats [n, d_model].")
            layer = _layer((file.metadata() or {}).get(KEY))
            values = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise BankError(f"{path} is damaged or cut short ({error}).") from error
    return {layer: values[None] if values.ndim == 1 else values}


def _layer(about: str | None) -> int | None:
    """source_layer in our metadata; None if there is none, or the metadata is not ours."""
    try:
        value = json.loads(about or "{}")["source_layer"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if type(value) is int and 0 <= value <= MAX_LAYER else None
