"""Vectors from files that MELBO did not write: one reader per format, chosen by the file's first bytes.

Each reader returns float tensors [n, d_model] by source layer in our convention (None: the file does not say). Before
that it checks every declared size against the file's. `read_vectors` chooses the layer and checks the numbers.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from melbo.errors import BankError
from melbo.formats.readers.arrays import read_npy, read_safetensors
from melbo.formats.readers.gguf import read_gguf
from melbo.formats.readers.pt import read_pt
from melbo.formats.readers.svec import read_svec

MAX_BYTES = 2**30
"""Largest file that is read: 8,192 vectors of 32,768 numbers."""
Layers = dict[int | None, Tensor]
Reader = tuple[str, Callable[[Path], Layers]]
_MAGIC: tuple[tuple[bytes, Reader], ...] = (
    (b"GGUF", ("gguf", read_gguf)),
    (b"\x93NUMPY", ("npy", read_npy)),
    (b"PK\x03\x04", ("pt", read_pt)),
)


@dataclass(frozen=True, eq=False)
class ForeignVectors:
    """What a foreign file holds for one layer."""

    vectors: Tensor
    """[n, d_model] float32, all finite and none zero; norms as in the file."""
    layer: int | None
    """Block whose output they are added to, 0-based; None: neither the file nor the caller said."""
    format: str
    """"gguf", "svec", "npy", "safetensors" or "pt"."""


def read_vectors(path: str | Path, layer: int | None = None) -> ForeignVectors:
    """Read steering vectors from a .gguf, .svec, .npy, .safetensors or .pt file.

    Args:
        layer: source layer in our convention; needed if the file holds several, or does not name one.

    Raises:
        BankError: the file is missing, damaged or of an unknown kind, or holds nothing for that layer.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise BankError(f"{path} is not a file; give a .gguf, .svec, .npy, .safetensors or .pt file.")
    if path.stat().st_size > MAX_BYTES:
        raise BankError(f"{path} is larger than {MAX_BYTES // 2**20} MiB; steering vectors are much smaller.")
    name, reader = _reader(path)
    found = reader(path)
    chosen = _choose(found, layer, path)
    vectors = found[chosen]
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise BankError(f"{path}: the tensor has shape {list(vectors.shape)}; expected [n, d_model] or [d_model].")
    vectors = vectors.to(torch.float32)
    norms = vectors.norm(dim=-1)
    bad = (~torch.isfinite(norms) | (norms == 0)).nonzero()
    if len(bad):
        raise BankError(
            f"{path}: vector {int(bad[0])} has norm {float(norms[bad[0]]):.4g}; it must be finite and not zero."
        )
    return ForeignVectors(vectors, layer if chosen is None else chosen, name)


def _reader(path: Path) -> Reader:
    with path.open("rb") as file:
        head = file.read(16)
    for magic, reader in _MAGIC:
        if head.startswith(magic):
            return reader
    if head[8:9] == b"{":  # 8 bytes of header length, then JSON
        return "safetensors", read_safetensors
    if head.lstrip()[:1] == b"{":
        return "svec", read_svec
    raise BankError(f"{path} is not a .gguf, .svec, .npy, .safetensors or .pt file (of PyTorch 1.6 or later).")


def _choose(found: Layers, layer: int | None, path: Path) -> int | None:
    """Which key of `found` to use."""
    if None in found:
        return None
    if layer in found:
        return layer
    layers = sorted(key for key in found if key is not None)
    listed = ", ".join(map(str, layers[:16])) + (", ..." if len(layers) > 16 else "")
    if layer is not None:
        raise BankError(f"{path} holds no vector for the output of block {layer}; it has blocks {listed}.")
    if len(layers) != 1:
        raise BankError(f"{path} holds vectors for the outputs of blocks {listed}; choose one as the source layer.")
    return layers[0]
