"""Formats in: every reader gives back what was written, and refuses what is damaged or hostile with one clear line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.formats import read_vectors as reading
from melbo.formats.mixture import Mixture, mix
from melbo.formats.read_vectors import read_vectors
from melbo.formats.readers import gguf as read_gguf
from melbo.formats.readers import svec as read_svec
from melbo.formats.writers.arrays import export_npy, export_safetensors, export_svec
from melbo.formats.writers.control_gguf import export_control_gguf

FORMATS = ("gguf", "svec", "npy", "safetensors", "pt")


@pytest.fixture
def mixture(tiny_bank: VectorBank) -> Mixture:
    return mix(tiny_bank, [3, 0], [1.5, -0.5])


def write_as(name: str, mixture: Mixture, path: Path) -> Path:
    """One mixture in any format that is read."""
    if name == "gguf":
        return export_control_gguf(mixture, path)
    if name == "svec":
        return export_svec(mixture, path)
    if name == "npy":
        return export_npy(mixture.vector, path)
    if name == "safetensors":
        return export_safetensors(mixture.vector, path, mixture.layer, mixture.model)
    torch.save(mixture.vector, path)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_back_exactly_whatever_the_file_is_called(
    name: str, mixture: Mixture, tmp_path: Path
) -> None:
    found = read_vectors(write_as(name, mixture, tmp_path / "v.bin"), mixture.layer)
    assert (found.format, found.layer) == (name, mixture.layer)
    assert torch.equal(found.vectors, mixture.vector[None])
    if name in ("gguf", "svec", "safetensors"):
        assert read_vectors(tmp_path / "v.bin").layer == mixture.layer
        with pytest.raises(BankError, match="no vector for the output of block 0"):
            read_vectors(tmp_path / "v.bin", 0)
    else:
        assert read_vectors(tmp_path / "v.bin").layer is None


VECTORS = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("as_parameter", [False, True])
def test_bare_tensors_of_torch_save(dtype: torch.dtype, as_parameter: bool, tmp_path: Path) -> None:
    """As the original repository saves its vectors."""
    tensor = VECTORS.to(dtype)
    torch.save(torch.nn.Parameter(tensor) if as_parameter else tensor, tmp_path / "v.pt")
    found = read_vectors(tmp_path / "v.pt", 4)
    assert torch.equal(found.vectors, tensor.float()) and found.layer == 4 and not found.vectors.requires_grad


@pytest.mark.parametrize("tensor", [VECTORS[1:3], VECTORS.T, VECTORS[:, ::2]], ids=["rows", "transposed", "strided"])
def test_views_of_torch_save(tensor: Tensor, tmp_path: Path) -> None:
    torch.save(tensor, tmp_path / "v.pt")
    assert torch.equal(read_vectors(tmp_path / "v.pt").vectors, tensor)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_arrays_of_numpy(order: Any, dtype: str, tmp_path: Path) -> None:
    array = np.array(VECTORS.numpy(), dtype=dtype, order=order)
    np.save(tmp_path / "v.npy", array)
    assert np.array_equal(read_vectors(tmp_path / "v.npy").vectors.numpy(), array.astype("f4"))


def test_a_banks_own_file_is_read(saved_bank: Path, tiny_bank: VectorBank) -> None:
    assert torch.equal(read_vectors(saved_bank / "vectors.safetensors", 1).vectors, tiny_bank.vectors)


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    """A control vector with directions for blocks 1 to 3, written by the package gguf, as repeng does."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "layers.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_array("controlvector.words", ["a", "b"])
    writer.add_array("controlvector.numbers", [1, 2, 3])
    writer.add_float64("controlvector.double", 0.5)
    writer.add_bool("controlvector.bool", True)
    for layer, dtype in ((1, "f4"), (2, "f2"), (3, "f4")):
        writer.add_tensor(f"direction.{layer}", VECTORS[layer].numpy().astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "layers.gguf"


def test_the_layer_is_chosen_where_a_file_has_several(layered: Path) -> None:
    with pytest.raises(BankError, match="blocks 1, 2, 3; choose one"):
        read_vectors(layered)
    assert torch.equal(read_vectors(layered, 3).vectors, VECTORS[3:4])
    assert torch.equal(read_vectors(layered, 2).vectors, VECTORS[2:3].half().float())


def test_svec_layers_are_block_inputs(tmp_path: Path) -> None:
    """Its layer 1 is the output of our block 0; the input of block 0 is no block's output."""
    path = tmp_path / "v.svec"
    path.write_text(json.dumps({"directions": {"0": [1.0, 2.0], "1": [3.0, 4]}}))
    found = read_vectors(path)
    assert (found.layer, found.vectors.tolist()) == (0, [[3.0, 4.0]])
    path.write_text(json.dumps({"directions": {"0": [1.0, 2.0]}}))
    with pytest.raises(BankError, match="input of block 0"):
        read_vectors(path)


def test_missing_files_and_large_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BankError, match="not a file"):
        read_vectors(tmp_path / "none.pt")
    path = write_as("npy", Mixture(VECTORS[0], 1, "tiny", ""), tmp_path / "v.npy")
    monkeypatch.setattr(reading, "MAX_BYTES", 64)
    with pytest.raises(BankError, match="larger than"):
        read_vectors(path)
    for module, name in ((read_gguf, "gguf"), (read_svec, "svec")):
        path = write_as(name, Mixture(VECTORS[0], 1, "tiny", ""), tmp_path / f"v.{name}")
        monkeypatch.setattr(reading, "MAX_BYTES", 2**30)
        monkeypatch.setattr(module, "MAX_BYTES", 64)
        with pytest.raises(BankError, match="larger than"):
            read_vectors(path)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few flipped, overwritten by an extreme number, cut off or doubled."""
    buffer = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(buffer), 512) if rng.random() < 0.7 else len(buffer))
        kind = rng.randrange(4)
        if kind == 0:
            buffer[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            extreme = rng.choice([b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80"])
            buffer[at : at + len(extreme)] = extreme
        elif kind == 2:
            del buffer[max(at, 1) :]
        else:
            buffer[at:at] = buffer[at : at + 64]
    return bytes(buffer)


@pytest.mark.parametrize("name", FORMATS)
def test_mutations_load_finite_vectors_or_raise_bank_error(name: str, mixture: Mixture, tmp_path: Path) -> None:
    data = write_as(name, mixture, tmp_path / "good").read_bytes()
    rng, loaded, lines = random.Random(1), 0, {0}
    for _ in range(300):
        (tmp_path / "bad").write_bytes(mutated(data, rng))
        try:
            found = read_vectors(tmp_path / "bad", mixture.layer)
        except BankError as error:
            lines.add(str(error).count("\n"))
            continue
        loaded += 1
        assert torch.isfinite(found.vectors).all() and found.vectors.numel() * 2 <= len(data) + 256
    assert loaded < 300 and lines == {0}
