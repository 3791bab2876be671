"""Formats out: each read back by the library it is for, which then computes the same logits as `steering.hooks`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, ExportError
from melbo.formats.mixture import Mixture, mix
from melbo.formats.writers.arrays import export_npy, export_safetensors, export_svec
from melbo.formats.writers.control_gguf import export_control_gguf
from melbo.formats.writers.libraries import to_repeng, to_steering_vector
from melbo.models.load import LoadedModel
from melbo.steering.hooks import steer
from support.tiny import MakeTiny

IDS = torch.arange(7, 19)[None]


@pytest.fixture
def mixture(tiny_bank: VectorBank) -> Mixture:
    """1.5 x vector 3 - 0.5 x vector 0."""
    return mix(tiny_bank, [3, 0], [1.5, -0.5])


@pytest.fixture
def repeng(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Repeng 0.4, which names np.float_ in annotations; numpy 2 has none."""
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    return pytest.importorskip("repeng")


def logits(loaded: LoadedModel) -> Tensor:
    with torch.no_grad():
        return loaded.model(input_ids=IDS).logits


def ours(loaded: LoadedModel, mixture: Mixture) -> Tensor:
    """Steered logits, which differ from the unsteered ones by far more than the tests' tolerance."""
    with steer(loaded, mixture.layer, mixture.vector):
        steered = logits(loaded)
    assert (steered - logits(loaded)).abs().max() > 0.1
    return steered


def same(theirs: Tensor, expected: Tensor) -> bool:
    return bool((theirs - expected).abs().max() < 1e-4)


def test_a_mixture_is_the_weighted_sum_and_names_its_parts(tiny_bank: VectorBank, mixture: Mixture) -> None:
    assert torch.allclose(mixture.vector, 1.5 * tiny_bank.vectors[3] - 0.5 * tiny_bank.vectors[0], atol=1e-6)
    assert (mixture.layer, mixture.name) == (tiny_bank.layer, "1.5 x mode 3 + -0.5 x mode 0")
    assert torch.equal(mix(tiny_bank, [2]).vector, tiny_bank.vectors[2])


@pytest.mark.parametrize(
    ("indices", "scales", "error"),
    [
        ([], [], BankError),
        ([8], [], BankError),
        ([-1], [], BankError),
        ([1, 2], [1.0], ConfigError),
        ([1], [0.0], ConfigError),
        ([1], [float("nan")], ConfigError),
        ([1], [1e300], ConfigError),
    ],
)
def test_impossible_mixtures_are_refused(
    tiny_bank: VectorBank, indices: list[int], scales: list[float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        mix(tiny_bank, indices, scales)


def test_repeng_reads_our_gguf_and_steers_the_same(
    repeng: Any, make_tiny: MakeTiny, mixture: Mixture, tmp_path: Path
) -> None:
    loaded = make_tiny()
    expected = ours(loaded, mixture)
    vector = repeng.ControlVector.import_gguf(export_control_gguf(mixture, tmp_path / "v.gguf", "repeng"))
    assert np.array_equal(vector.directions[mixture.layer], mixture.vector.numpy())
    model = repeng.ControlModel(loaded.model, [mixture.layer])
    model.set_control(vector)
    with torch.no_grad():
        assert same(model(input_ids=IDS).logits, expected)
    model.unwrap()


def test_repeng_takes_our_control_vector(repeng: Any, make_tiny: MakeTiny, mixture: Mixture) -> None:
    loaded = make_tiny()
    expected = ours(loaded, replace(mixture, vector=mixture.vector * 0.5))
    model = repeng.ControlModel(loaded.model, [mixture.layer])
    model.set_control(to_repeng(mixture, loaded.model.config.model_type), coeff=0.5)
    with torch.no_grad():
        assert same(model(input_ids=IDS).logits, expected)
    model.unwrap()


def test_steering_vectors_takes_our_vector(make_tiny: MakeTiny, mixture: Mixture) -> None:
    pytest.importorskip("steering_vectors")
    loaded = make_tiny()
    expected = ours(loaded, mixture)
    with to_steering_vector(mixture).apply(loaded.model):
        assert same(logits(loaded), expected)


class LeashedBlock(nn.Module):
    """What activation-steering's LeashLayer does with a behaviour vector: it adds it to its block's input."""

    def __init__(self, block: nn.Module, vector: Tensor) -> None:
        super().__init__()
        self.block, self.vector = block, vector

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.block(hidden + self.vector, *args, **kwargs)


def test_svec_steers_the_same_where_activation_steering_adds_it(
    make_tiny: MakeTiny, mixture: Mixture, tmp_path: Path
) -> None:
    """The library itself is not on PyPI."""
    loaded = make_tiny()
    expected = ours(loaded, mixture)
    raw = json.loads(export_svec(mixture, tmp_path / "v.svec").read_text())
    assert set(raw) == {"model_type", "directions", "explained_variances"}
    ((layer, values),) = raw["directions"].items()
    loaded.blocks[int(layer)] = LeashedBlock(loaded.blocks[int(layer)], torch.tensor(values))
    assert same(logits(loaded), expected)


def test_gguf_holds_what_llama_cpp_and_easysteer_look_for(mixture: Mixture, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(export_control_gguf(mixture, tmp_path / "v.gguf", "easysteer", "dct"))
    text = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("general", "control"))}
    assert text["general.architecture"] == "controlvector"
    assert text["controlvector.model_hint"] == "tiny"
    assert text["controlvector.layer_count"] == 1
    assert text["controlvector.method"] == "dct"
    (tensor,) = reader.tensors
    assert (tensor.name, tensor.tensor_type) == (f"direction.{mixture.layer}", gguf.GGMLQuantizationType.F32)
    assert np.array_equal(tensor.data, mixture.vector.numpy())


def test_block_0_is_refused_for_llama_cpp_before_anything_is_written(mixture: Mixture, tmp_path: Path) -> None:
    first = replace(mixture, layer=0)
    with pytest.raises(ExportError, match="block 0"):
        export_control_gguf(first, tmp_path / "v.gguf")
    assert not list(tmp_path.iterdir())
    assert export_control_gguf(first, tmp_path / "v.gguf", "repeng").exists()


def test_plain_arrays_hold_the_numbers(tiny_bank: VectorBank, mixture: Mixture, tmp_path: Path) -> None:
    one = np.load(export_npy(mixture.vector, tmp_path / "v.npy"), allow_pickle=False)
    assert np.array_equal(one, mixture.vector.numpy())
    paths = [export_safetensors(tiny_bank.vectors, tmp_path / n, 1, "tiny") for n in ("a.safetensors", "b.safetensors")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safe_open(str(paths[0]), framework="pt") as file:
        assert torch.equal(file.get_tensor("vectors"), tiny_bank.vectors)
        assert json.loads(file.metadata()["melbo"]) == {"source_layer": 1, "base_model": "tiny"}


@pytest.fixture
def occupied(tmp_path: Path) -> Iterator[Path]:
    """A file that no export may touch, nor leave another beside."""
    path = tmp_path / "taken"
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_no_export_overwrites_a_file(occupied: Path, mixture: Mixture) -> None:
    for write in (export_control_gguf, export_svec):
        with pytest.raises(ExportError, match="exists"):
            write(mixture, occupied)
    with pytest.raises(ExportError, match="exists"):
        export_npy(mixture.vector, occupied)
    with pytest.raises(ExportError, match="exists"):
        export_safetensors(mixture.vector, occupied, 1, "tiny")


def test_a_failed_export_leaves_nothing(mixture: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="no space"):
        export_npy(mixture.vector, tmp_path / "v.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["repeng", "steering_vectors"])
def test_a_missing_library_is_named(module: str, mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError):
        import_module(module)
    with pytest.raises(ExportError, match=module.replace("_", ".")):
        if module == "repeng":
            to_repeng(mixture, "llama")
        else:
            to_steering_vector(mixture)
