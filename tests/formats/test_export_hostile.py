"""Hostile files: each is refused with one clear line, and nothing in it runs."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from melbo.errors import BankError
from melbo.formats.read_vectors import read_vectors

Write = Callable[[Path], Any]
VECTORS = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


def lie_about(path: Path, old: bytes, new: bytes) -> None:
    """Rewrite a .pt file with other bytes in its pickle."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            assert not name.endswith("data.pkl") or old in data
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


class Bomb:
    """Unpickled without care, this allocates a terabyte."""

    def __reduce__(self) -> Any:
        return bytearray, (2**40,)


def pt(value: Any) -> Write:
    return lambda path: torch.save(value, path)


def text(value: str) -> Write:
    return lambda path: path.write_text(value)


def raw(value: bytes) -> Write:
    return lambda path: path.write_bytes(value)


def gguf_header(version: int = 3, tensors: int = 1, pairs: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def gguf_string(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


ARCHITECTURE = gguf_string(b"general.architecture") + struct.pack("<I", 8) + gguf_string(b"controlvector")


def gguf_tensor(name: bytes, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    described = gguf_string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", kind, offset)
    return gguf_header() + ARCHITECTURE + described + bytes(256)


def npy(header: str, data: bytes = b"") -> Write:
    return raw(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def old_pt(path: Path) -> None:
    torch.save(VECTORS, path, _use_new_zipfile_serialization=False)


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("v/data.pkl", pickle.dumps(1, protocol=2))
        archive.writestr("v/data/0", bytes(2**20))


HOSTILE: dict[str, tuple[Write, str]] = {
    "empty": (raw(b""), "is not a .gguf"),
    "text": (text("hello"), "is not a .gguf"),
    "pickle": (raw(pickle.dumps([1.0])), "is not a .gguf"),
    "old torch.save": (old_pt, "is not a .gguf"),
    "pt of a dict": (pt({"v": VECTORS}), "pt|tensor"),
    "pt of a list": (pt([VECTORS]), "one tensor"),
    "pt of integers": (pt(torch.ones(2, 3, dtype=torch.int64)), "one tensor"),
    "pt of 3 dimensions": (pt(VECTORS[None]), r"not hold a tensor \[n, d_model\]"),
    "pt of a repeating view": (pt(torch.ones(1, 1).expand(1000, 1000)), "larger than the file"),
    "pt of NaN": (pt(VECTORS * torch.nan), "vector 0 has norm nan"),
    "pt of a zero vector": (pt(torch.eye(3)[[0, 1]] * torch.tensor([[1.0], [0.0]])), "vector 1 has norm 0"),
    "pt of nothing": (pt(torch.zeros(0, 4)), "shape"),
    "pt with a bomb": (pt(Bomb()), "bytearray"),
    "pt that is a zip bomb": (zip_bomb, "compressed"),
    "npy of objects": (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([{}])), "floats"),
    "npy of integers": (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", bytes(8)), "floats"),
    "npy too short": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999), }"), "does not have"),
    "npy of code": (npy("__import__('os').abort()"), "not an array"),
    "npy with a huge header": (raw(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"), "header"),
    "gguf of version 9": (raw(gguf_header(9)), "version is 9"),
    "gguf with many tensors": (raw(gguf_header(tensors=2**62)), "tensors are declared"),
    "gguf with many pairs": (raw(gguf_header(pairs=2**62)), "pairs are declared"),
    "gguf with a long string": (raw(gguf_header() + struct.pack("<Q", 2**63)), "bytes are declared"),
    "gguf of a model": (raw(gguf_header(pairs=0) + bytes(64)), "architecture"),
    "gguf key twice": (raw(gguf_header(pairs=2) + ARCHITECTURE * 2), "twice"),
    "gguf tensor too large": (raw(gguf_tensor(b"direction.1", (2**40,))), "larger than the file"),
    "gguf tensor far away": (raw(gguf_tensor(b"direction.1", (8,), offset=2**63)), "behind the end"),
    "gguf tensor of 2 dimensions": (raw(gguf_tensor(b"direction.1", (2, 2))), "dimensions"),
    "gguf tensor of quantised numbers": (raw(gguf_tensor(b"direction.1", (32,), kind=2)), "type 2"),
    "gguf tensor of another name": (raw(gguf_tensor(b"../../x", (8,))), "direction.N"),
    "gguf of zeros": (raw(gguf_tensor(b"direction.1", (8,))), "norm 0"),
    "svec without directions": (text('{"model_type": "x"}'), "directions"),
    "svec with NaN": (text('{"directions": {"1": [NaN]}}'), "NaN"),
    "svec with 1e999": (text('{"directions": {"1": [1e999]}}'), "not finite"),
    "svec with 1e300": (text('{"directions": {"1": [1e300]}}'), "norm inf"),
    "svec with text": (text('{"directions": {"1": ["1"]}}'), "list of numbers"),
    "svec with true": (text('{"directions": {"1": [true]}}'), "list of numbers"),
    "svec with a long number": (text('{"directions": {"1": [' + "9" * 5000 + "]}}"), "readable"),
    "svec with a layer twice": (text('{"directions": {"1": [1], "1": [2]}}'), "twice"),
    "svec with a strange layer": (text('{"directions": {"-1": [1]}}'), "layer '-1'"),
    "svec in depth": (text("{" + '"a":[' * 1000 + "1"), "2000|readable"),
    "svec of many lists": (text('{"directions": [' + "[]," * 3000 + "1]}"), "lists"),
    "safetensors with a huge header": (raw(struct.pack("<Q", 2**62) + b"{" + bytes(64)), "damaged"),
    "safetensors of two": (lambda p: save_file({"a": VECTORS, "b": VECTORS.clone()}, p), 'named "vectors"'),
    "safetensors of integers": (lambda p: save_file({"vectors": torch.ones(2, 2).int()}, p), "I32"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    write, message = HOSTILE[name]
    write(tmp_path / "v")
    with pytest.raises(BankError, match=message) as caught:
        read_vectors(tmp_path / "v")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_pt_file_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(8, 64), tmp_path / "v.pt")
    lie_about(tmp_path / "v.pt", b"K\x08K@", b"J\x00\x00\x40\x00K@")  # 2**22 rows
    with pytest.raises(BankError, match="more than the file's size"):
        read_vectors(tmp_path / "v.pt")


def test_nothing_in_a_pt_file_runs(tmp_path: Path) -> None:
    """A pickle that would write a file is refused before it is read."""

    class Writer:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "written"), "w")

    torch.save(Writer(), tmp_path / "v.pt")
    with pytest.raises(BankError, match="open"):
        read_vectors(tmp_path / "v.pt")
    assert not (tmp_path / "written").exists()
