"""Plain arrays: .npy files, whose header is matched, not evaluated, and .safetensors files."""

import json
import math
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from melbo.errors import BankError
from melbo.formats.writers.arrays import KEY

_NPY_DTYPES = {"<f2": torch.float16, "<f4": torch.float32, "<f8": torch.float64}
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]\w{1,8})', 'fortran_order': (True|False), 'shape': \((\d{1,12}), ?(\d{1,12})?,?\), ?\}\s*"
)
MAX_HEADER = 4096
_SAFE_DTYPES = ("F64", "F32", "F16", "BF16")
MAX_LAYER = 10_000


def read_npy(path: Path) -> dict[int | None, Tensor]:
    """The array as [n, d_model], without a layer.

    Raises:
        BankError: the file is damaged, or does not hold one or two dimensions of floats.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        wide = head[6:7] in (b"\x02", b"\x03")
        start = 12 if wide else 10
        length = int.from_bytes(head[8:start], "little")
        if length > MAX_HEADER or start + length > size:
            raise BankError(f"{path}: the header is declared {length} bytes long; the file has {size} bytes.")
        file.seek(start)
        match = _HEADER.fullmatch(file.read(length))
        dtype = _NPY_DTYPES.get(match[1].decode()) if match else None
        if match is None or dtype is None:
            raise BankError(f"{path} is not an array [n, d_model] or [d_model] of little-endian floats.")
        shape = [int(n) for n in match.groups()[2:] if n is not None]
        if start + length + math.prod(shape) * dtype.itemsize != size:
            raise BankError(f"{path}: an array of {shape} {match[1].decode()} does not have {size} bytes.")
        if 0 in shape:
            raise BankError(f"{path} holds an empty array.")
        values = torch.frombuffer(bytearray(file.read()), dtype=dtype)
    if match[2] == b"True" and len(shape) == 2:
        return {None: values.reshape(shape[::-1]).T.contiguous()}
    return {None: values.reshape(shape if len(shape) == 2 else [1, *shape])}


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
            if part.get_dtype() not in _SAFE_DTYPES or len(shape) not in (1, 2) or not math.prod(shape):
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
