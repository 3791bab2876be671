"""Read a GGUF control vector: llama.cpp's, repeng's or EasySteer's (see writers/control_gguf.py for what is in it).

The package gguf trusts some counts and offsets in the file, so this module reads the format itself:
header, key-value pairs, tensor descriptions, data. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import re
import struct
from pathlib import Path

import torch
from torch import Tensor

from melbo.errors import BankError

VERSIONS = (2, 3)
MAX_ITEMS = 65_536
"""Most key-value pairs, tensors and list values, all together."""
MAX_TENSORS = 2048
"""One for each block; each takes some memory besides its numbers."""
MAX_DIMS = 4
MAX_BYTES = 2**26
_SCALAR_BYTES = (1, 1, 2, 2, 4, 4, 4, 1, None, None, 8, 8, 8)
"""Of value types 0 to 12: integers, float, bool, string (8), list (9), 64-bit integers, double."""
_STRING, _LIST = 8, 9
_DTYPES = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
_NAME = re.compile(r"direction\.(\d{1,6})")
_Tensors = list[tuple[str, tuple[int, ...], int, int]]


def read_gguf(path: Path) -> dict[int | None, Tensor]:
    """Directions [1, d_model] by block number.

    Raises:
        BankError: the file is damaged, or is not a control vector.
    """
    if path.stat().st_size > MAX_BYTES:
        raise BankError(f"{path} is larger than {MAX_BYTES // 2**20} MiB; a GGUF control vector is much smaller.")
    try:
        return _directions(_Cursor(path.read_bytes()))
    except (ValueError, struct.error) as error:
        raise BankError(f"{path} is not a readable GGUF control vector: {error}.") from error


class _Cursor:
    """A position in the file; every step is checked against the file's length."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.items = data, 0, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError(f"{size} bytes are declared at byte {self.at}, where {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def count(self, what: str) -> int:
        value = self.u64()
        self.items += value
        if self.items > MAX_ITEMS:
            raise ValueError(f"{value} {what} are declared; at most {MAX_ITEMS} items are read")
        return value

    def text(self) -> str:
        return self.take(self.u64()).decode("utf-8")


def _directions(cursor: _Cursor) -> dict[int | None, Tensor]:
    cursor.take(4)
    version = cursor.u32()
    if version not in VERSIONS:
        raise ValueError(f"its version is {version}; expected 2 or 3, little-endian")
    n_tensors, n_pairs = cursor.count("tensors"), cursor.count("key-value pairs")
    if n_tensors > MAX_TENSORS:
        raise ValueError(f"{n_tensors} tensors are declared; at most {MAX_TENSORS} are read")
    pairs: dict[str, str | int | None] = {}
    for _ in range(n_pairs):
        key = cursor.text()
        if key in pairs:
            raise ValueError(f"the key {key[:60]!r} comes twice")
        pairs[key] = _value(cursor, cursor.u32())
    if pairs.get("general.architecture") != "controlvector":
        raise ValueError(f"its general.architecture is {str(pairs.get('general.architecture'))[:60]!r}")
    alignment = pairs.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**16:
        raise ValueError("general.alignment is not a whole number from 1 to 65536")
    tensors = [_describe(cursor) for _ in range(n_tensors)]
    start = -(-cursor.at // alignment) * alignment
    return _read(cursor.data, start, tensors)


def _value(cursor: _Cursor, kind: int, depth: int = 0) -> str | int | None:
    """A string, an unsigned 32-bit number, or None for a value that is skipped."""
    if kind == _STRING:
        return cursor.text()
    if kind == _LIST:
        inner, n = cursor.u32(), cursor.count("values of a list")
        if inner == _LIST and depth > 2:
            raise ValueError("its lists are nested too deep")
        for _ in range(n):
            _value(cursor, inner, depth + 1)
        return None
    if kind >= len(_SCALAR_BYTES):
        raise ValueError(f"there is no value type {kind}")
    raw = cursor.take(_SCALAR_BYTES[kind] or 0)
    return int.from_bytes(raw, "little") if kind == 4 else None


def _describe(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, dimensions, type and offset of a tensor."""
    name, n_dims = cursor.text(), cursor.u32()
    if n_dims > MAX_DIMS:
        raise ValueError(f"tensor {name[:60]!r} has {n_dims} dimensions")
    return name, tuple(cursor.u64() for _ in range(n_dims)), cursor.u32(), cursor.u64()


def _read(data: bytes, start: int, tensors: _Tensors) -> dict[int | None, Tensor]:
    found: dict[int | None, Tensor] = {}
    if sum(dims[0] * 2 for _, dims, _, _ in tensors if dims) > len(data):  # at least 2 bytes a number
        raise ValueError("its tensors are larger than the file")
    for name, dims, kind, offset in tensors:
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) in found:
            raise ValueError(f"tensor {name[:60]!r} is not one direction.N for each block N")
        if len(dims) != 1 or dims[0] == 0 or kind not in _DTYPES:
            raise ValueError(f"{name} has dimensions {list(dims)} and type {kind}; expected one, of floats")
        dtype = _DTYPES[kind]
        first, last = start + offset, start + offset + dims[0] * dtype.itemsize
        if last > len(data):
            raise ValueError(f"{name} ends behind the end of the file")
        values = torch.frombuffer(bytearray(data[first:last]), dtype=dtype)
        found[int(match[1])] = values[None].to(torch.float32)
    if not found:
        raise ValueError("it does not hold a tensor direction.N")
    return found
