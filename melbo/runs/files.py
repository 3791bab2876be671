"""Files that banks are made of: JSON and safetensors, checked before they are read; folders, written whole or not.

Shared by `melbo.bank.vector_bank` and `melbo.bank.adapter_bank`.
"""

import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from melbo.errors import BankError

MAX_JSON_BYTES = 32 * 2**20
MAX_DEPTH = 64
"""Of lists and objects within each other: far below where Python's own encoder gives up."""
MAX_DIGITS = 300
"""Of a whole number: every one fits a float."""
_SMALL = 2**20
"""Bytes of JSON that may hold as many values as they can."""
_MEMORY = {",": 32, '"': 14, "[": 56, "{": 112, ":": 72}
"""Bytes of memory that Python takes for what a character of JSON stands for, about the most."""
_TIMES = 10


def json_text(value: Any) -> str:
    """Indented JSON with a last line break.

    Raises:
        ValueError: it holds NaN or infinite numbers.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """The value in a JSON file of at most MAX_JSON_BYTES.

    Raises:
        BankError: the file is missing, too large, or no JSON (see `parse_json`).
    """
    if not os.path.isfile(path):
        raise BankError(f"{path} is missing; this folder is not complete.")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BankError(f"{path} is larger than {MAX_JSON_BYTES // 2**20} MiB; that is no bank's file.")
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BankError(f"{path} is not valid JSON ({str(error)[:200]}); download or save it again.") from error


def parse_json(data: bytes) -> Any:
    """The value in JSON that may come from anybody; it can be written again.

    Raises:
        ValueError: it is no JSON or not UTF-8, holds NaN, numbers too large for a float, a key twice, halves of
            surrogate pairs or more than MAX_DEPTH levels, or would take more than ten times its size in memory.
    """
    text = data.decode("utf-8")
    if len(data) > _SMALL:
        memory = len(data) + sys.getsizeof(text) + sum(text.count(mark) * cost for mark, cost in _MEMORY.items())
        if memory > _TIMES * len(data):
            raise ValueError("it holds far more values than text")
    try:
        value = json.loads(
            text, parse_constant=_finite, parse_float=_finite, parse_int=_whole, object_pairs_hook=_unique
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    _check_depth(value)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def write_file(path: Path, content: str | bytes) -> Path:
    """Write all of a file, or nothing."""
    data = content.encode() if isinstance(content, str) else content
    return fill_file(path, lambda file: file.write_bytes(data))


def fill_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path` and give it that name: the file is whole, or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path, value: Any) -> None:
    """Write `json_text`."""
    path.write_text(json_text(value), encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; the same tensors give the same bytes.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path))
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    path.chmod(0o644)  # safetensors lets the owner alone read it


def read_tensors(path: Path, shapes: dict[str, list[int]], optional: frozenset[str] = frozenset()) -> dict[str, Tensor]:
    """Tensors of these names and shapes, all float32 and finite; the header is checked before anything is allocated.

    Args:
        optional: names in `shapes` that may be absent.

    Raises:
        BankError: the file is missing or damaged, or a tensor is missing, of another shape or type, or not finite.
    """
    if not os.path.isfile(path):
        raise BankError(f"{path} is missing; this folder is not complete.")
    try:
        with safe_open(str(path), framework="pt") as file:
            held = set(file.keys())
            names = [name for name in shapes if name in held or name not in optional]
            for name in names:
                if name not in held:
                    raise BankError(f"{path} holds no tensor {name!r}.")
                part = file.get_slice(name)
                if part.get_shape() != shapes[name] or part.get_dtype() != "F32":
                    raise BankError(
                        f"{path}: {name} is {part.get_dtype()} {part.get_shape()}; config.json asks for F32 "
                        f"{shapes[name]}."
                    )
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise BankError(f"{path} is damaged or cut short ({error}); download or save it again.") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BankError(f"{path}: {name} holds NaN or infinite values; train it again.")
    return tensors


def check_new(folder: Path) -> None:
    """Raise BankError if `folder` is a file or holds files."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BankError(f"{folder} is not empty; choose a new folder.")


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a new or empty folder, so that nothing is left half-written.

    Raises:
        BankError: as `check_new`.
    """
    check_new(Path(folder).resolve())
    return replace_folder(folder, write)


def replace_folder(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary folder and put it in the place of `folder`.

    What lies in the old folder and is not in the new one is lost: `write` copies what is to stay. Whatever fails, the
    old folder is as it was.
    """
    folder = Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    old = None
    try:
        write(temporary)
        temporary.chmod(0o755)
        if folder.exists():
            old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
            os.replace(folder, old)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old is not None and old.exists() and not folder.exists():
            os.replace(old, folder)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # NaN, Infinity, 1e999: Python reads them, JSON and `json_text` know none
        raise ValueError(f"{text} is not a JSON number")
    return value


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number has {len(text)} digits")
    return int(text)


def _check_depth(value: Any) -> None:
    """Raise ValueError where lists and objects lie more than MAX_DEPTH deep in each other."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        parts = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list)))
        level = [item for part in parts for item in part if isinstance(item, (dict, list))]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has the same key twice")
    return values
