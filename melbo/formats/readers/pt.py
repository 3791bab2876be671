"""Read a bare tensor [n, d_model] or [d_model] that torch.save wrote: the original repository's and the replication's.

Such a file is a zip of a small pickle, which describes the tensor, and of its bytes. Even torch.load(weights_only=True)
can be made to allocate any amount of memory (a bytearray of any length, a view that repeats one number). So this module
first reads the pickle's opcodes without running them, and goes on only if they build one tensor no larger than the
file.
"""

import io
import mmap
import pickletools
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from melbo.errors import BankError

MAX_PICKLE = 4096
"""Bytes; a bare tensor's has about 160."""
MAX_ENTRIES = 16
_OPCODE = re.compile(
    "PROTO|GLOBAL|BINPUT|BINGET|MARK|BINUNICODE|BININT[12]?|LONG1|TUPLE[123]?|EMPTY_TUPLE|EMPTY_DICT|BINPERSID|NEWTRUE|"
    "NEWFALSE|REDUCE|STOP"
)
_STORAGES = ("FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage")
_GLOBALS = frozenset(
    ["torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"]
    + [f"torch {name}" for name in _STORAGES]
)


def read_pt(path: Path) -> dict[int | None, Tensor]:
    """The tensor as [n, d_model], without a layer.

    Raises:
        BankError: the file is damaged, or does not hold exactly one tensor of floats.
    """
    size = path.stat().st_size
    try:
        _check_zip(path, size)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickletools, zipfile and torch raise errors of many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BankError(f"{path} is not a file with one tensor that torch.save wrote: {reason}.") from error
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim not in (1, 2):
        raise BankError(f"{path} does not hold a tensor [n, d_model] of floats.")
    if found.numel() * found.element_size() > size:  # a view that repeats what is stored
        raise BankError(f"{path}: a tensor of {list(found.shape)} is larger than the file of {size} bytes.")
    values = found.detach()
    return {None: values[None] if values.ndim == 1 else values}


def _check_zip(path: Path, size: int) -> None:
    """Raise ValueError unless the zip holds no more than its size, and its pickle builds one tensor."""
    _count_entries(path)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise ValueError("its zip is compressed, or has too many entries")
        if sum(e.file_size for e in entries) > size:
            raise ValueError("its entries are declared larger than the file")
        described = [e for e in entries if e.filename.split("/")[-1] == "data.pkl"]
        if len(described) != 1 or described[0].file_size > MAX_PICKLE:
            raise ValueError("it has no small data.pkl")
        _check_pickle(archive.read(described[0]), size)


def _count_entries(path: Path) -> None:
    """Raise ValueError if the zip's list, which ZipFile reads whole, is long."""
    at = -1
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for _ in range(4 * MAX_ENTRIES):
            at = data.find(b"PK\x01\x02", at + 1)
            if at < 0:
                return
    raise ValueError("its zip has too many entries")


def _check_pickle(data: bytes, size: int) -> None:
    for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
        if not _OPCODE.fullmatch(opcode.name):
            raise ValueError(f"its pickle uses {opcode.name}")
        if opcode.name == "GLOBAL" and argument not in _GLOBALS:
            raise ValueError(f"its pickle uses {str(argument)[:60]!r}")
        if isinstance(argument, int) and not 0 <= argument <= size:
            raise ValueError(f"its pickle holds the number {argument}, which is more than the file's size")
