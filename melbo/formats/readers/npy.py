"""Read a .npy file of floats, [n, d_model] or [d_model]. The header is matched, not evaluated."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from melbo.errors import BankError

_DTYPES = {"<f2": torch.float16, "<f4": torch.float32, "<f8": torch.float64}
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]\w{1,8})', 'fortran_order': (True|False), 'shape': \((\d{1,12}), ?(\d{1,12})?,?\), ?\}\s*"
)
MAX_HEADER = 4096


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
        dtype = _DTYPES.get(match[1].decode()) if match else None
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
