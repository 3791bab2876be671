"""Damaged banks: every kind of damage is refused with one line that names the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from melbo.bank.vector_bank import FORMAT_VERSION, VectorBank
from melbo.errors import BankError


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "vectors.safetensors"
    tensors = {k: v.clone() for k, v in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def refused(folder: Path) -> str:
    """The message of the BankError: one line that names the folder."""
    with pytest.raises(BankError) as error:
        VectorBank.load(folder)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("name", ["config.json", "vectors.safetensors"])
def test_a_missing_file_is_named(saved_bank: Path, name: str) -> None:
    (saved_bank / name).unlink()
    assert f"{name} is missing" in refused(saved_bank)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "there is no bank at" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_cut_short_tensors_are_refused(saved_bank: Path, keep: float) -> None:
    path = saved_bank / "vectors.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert "damaged or cut short" in refused(saved_bank)


@pytest.mark.parametrize("text", ["", "{", "null, ", '{"a": 1,}', "\xff", "9" * 5000, "[" * 100_000], ids=range(7))
@pytest.mark.parametrize("name", ["config.json", "annotations.json"])
def test_bad_json_is_refused(saved_bank: Path, name: str, text: str) -> None:
    (saved_bank / name).write_bytes(text.encode("latin-1"))
    assert "is not valid JSON" in refused(saved_bank)


def test_a_key_that_comes_twice_is_refused(saved_bank: Path) -> None:
    path = saved_bank / "config.json"
    path.write_text(path.read_text().replace('"radius"', '"radius": 1.0, "radius"', 1))
    assert "same key twice" in refused(saved_bank)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("vectors", lambda v: v[:7], "F32 [7, 64]; config.json asks for F32 [8, 64]"),
        ("vectors", lambda v: v[:, :32].contiguous(), "[8, 32]"),
        ("objective", lambda v: v[None], "objective is F32 [1, 8]"),
        ("output_directions", lambda v: v[:3], "output_directions"),
        ("vectors", lambda v: v.double(), "F64"),
        ("vectors", lambda v: v.half(), "F16"),
        ("objective", lambda v: v.int(), "I32"),
        ("vectors", lambda v: v * 1.01, "norm"),
        ("vectors", lambda v: torch.cat([v[:5], v[5:6] * 0, v[6:]]), "vector 5 has norm 0"),
        ("vectors", lambda v: torch.cat([v[:5], v[5:6] * torch.nan, v[6:]]), "vectors holds NaN"),
        ("objective", lambda v: v * torch.inf, "objective holds NaN or infinite"),
        ("output_directions", lambda v: v * torch.nan, "output_directions holds NaN"),
    ],
)  # fmt: skip
def test_impossible_tensors_are_refused(
    saved_bank: Path, name: str, change: Callable[[Tensor], Tensor], words: str
) -> None:
    edit_tensors(saved_bank, lambda tensors: tensors.update({name: change(tensors[name])}))
    assert words in refused(saved_bank)


@pytest.mark.parametrize("name", ["vectors", "objective", "output_directions"])
def test_an_absent_tensor_is_named(saved_bank: Path, name: str) -> None:
    edit_tensors(saved_bank, lambda tensors: tensors.pop(name))
    assert f"holds no tensor '{name}'" in refused(saved_bank)


def test_a_newer_format_asks_for_an_update(saved_bank: Path) -> None:
    edit_config(saved_bank, format_version=FORMAT_VERSION + 1)
    assert "update melbo" in refused(saved_bank)


@pytest.mark.parametrize("value", [0, -1, "1", None, 1.0])
def test_a_format_version_that_is_none_is_refused(saved_bank: Path, value: Any) -> None:
    edit_config(saved_bank, format_version=value)
    assert "format_version" in refused(saved_bank)


@pytest.mark.parametrize("value", ["melbo", None, 3])
def test_another_format_is_refused(saved_bank: Path, value: Any) -> None:
    edit_config(saved_bank, format=value)
    assert "not a MELBO bank" in refused(saved_bank)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_vectors", 0), ("n_vectors", 8.0), ("n_vectors", True), ("n_vectors", None), ("n_vectors", "8"),
        ("radius", 0), ("radius", -1.0), ("radius", "big"), ("radius", None), ("radius", float("nan")),
        ("mean_residual_norm", float("inf")), ("mean_residual_norm", []),
        ("base_model", None), ("base_model", {}), ("base_model", {"id": "x"}), ("base_model", "tiny"),
        ("base_model", {"id": 3, "revision": None, "d_model": 64, "n_layers": 4}),
        ("base_model", {"id": "tiny", "revision": 3, "d_model": 64, "n_layers": 4}),
        ("base_model", {"id": "tiny", "revision": None, "d_model": 64.0, "n_layers": 4}),
        ("base_model", {"id": "tiny", "revision": None, "d_model": 64, "n_layers": 1}),
        ("base_model", {"id": "tiny", "revision": None, "d_model": 64, "n_layers": 4, "more": 1}),
        ("config", None), ("config", []), ("config", {}), ("config", {"steps": -1}), ("config", {"unknown": 1}),
        pytest.param("radius", 10**400, id="radius-huge"),
        ("prompts", None), ("prompts", ["hello"]), ("prompts", [[{"role": "user"}]]), ("prompts", 3),
        ("versions", "1.0"), ("versions", [1]), ("versions", 3),
        ("source", {"repo": "a/b"}), ("source", {"repo": "a/b", "revision": "main"}), ("source", "a/b"),
        ("source", {"repo": 'a/b"); import os', "revision": "a" * 40}),
        ("details", [["a", 1]]), ("details", {"ratio": float("nan")}), ("details", {"ratio": [float("inf")]}),
    ],
)  # fmt: skip
def test_an_impossible_config_is_refused(saved_bank: Path, name: str, value: Any) -> None:
    edit_config(saved_bank, **{name: value})
    message = refused(saved_bank)
    assert "config.json is damaged" in message or "is not valid JSON" in message


@pytest.mark.parametrize("name", ["base_model", "config", "n_vectors", "radius", "mean_residual_norm", "prompts"])
def test_an_absent_entry_is_named(saved_bank: Path, name: str) -> None:
    path = saved_bank / "config.json"
    values = json.loads(path.read_text())
    del values[name]
    path.write_text(json.dumps(values))
    assert f"'{name}' is missing" in refused(saved_bank)


def test_layers_that_were_not_resolved_are_refused(saved_bank: Path) -> None:
    config = json.loads((saved_bank / "config.json").read_text())["config"]
    edit_config(saved_bank, config=config | {"source_layer": None})
    assert "not resolved" in refused(saved_bank)
    edit_config(saved_bank, config=config | {"target_layer": 4})
    assert "4 blocks" in refused(saved_bank)


@pytest.mark.parametrize("notes", [[], [{}] * 7, [{}] * 9, {}, "x", None])
def test_annotations_of_another_length_are_refused(saved_bank: Path, notes: Any) -> None:
    (saved_bank / "annotations.json").write_text(json.dumps(notes))
    assert "a list of 8 entries" in refused(saved_bank)


def test_annotations_that_are_no_objects_are_refused(saved_bank: Path) -> None:
    (saved_bank / "annotations.json").write_text(json.dumps([{}] * 7 + ["x"]))
    assert "one object per vector" in refused(saved_bank)
