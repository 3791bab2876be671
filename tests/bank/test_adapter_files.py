"""Adapters on disk: files are exact, damage is a named error, PEFT gives the same logits, and the commands work."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.adapter_bank import AdapterBank, apply
from melbo.bank.adapter_config import AdapterConfig, AdapterKind
from melbo.discovery.adapters import discover_adapters
from melbo.errors import BankError
from melbo.formats.writers.peft import export_peft
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat, encode

KINDS: tuple[AdapterKind, ...] = ("attention", "mlp")
PROMPTS = [chat(BOMB), chat("Tell me a joke.")]


@pytest.fixture(scope="module")
def banks(tiny: LoadedModel) -> dict[str, AdapterBank]:
    config = {"n_adapters": 3, "first_layer": 0, "target_layer": 3, "steps": 4}
    return {kind: discover_adapters(tiny, AdapterConfig(kind=kind, **config), PROMPTS) for kind in KINDS}


@pytest.fixture(scope="module")
def gpt2(tokenizer: Any) -> LoadedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=4, n_head=4, n_positions=256, initializer_range=0.2,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return LoadedModel(GPT2LMHeadModel(config).eval().requires_grad_(False), tokenizer, "gpt2", None)


def test_save_and_load_are_exact(banks: dict[str, AdapterBank], tmp_path: Path) -> None:
    for kind, bank in banks.items():
        loaded = AdapterBank.load(bank.save(tmp_path / kind))
        for name in ("a", "b", "objective", "random_objective"):
            assert torch.equal(getattr(loaded, name), getattr(bank, name))
        for name in ("config", "base_model", "radius", "modules", "fan_in_fan_out", "prompts", "versions", "created"):
            assert getattr(loaded, name) == getattr(bank, name)
        with pytest.raises(BankError, match="is not empty"):
            bank.save(tmp_path / kind)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["attention", "mlp"]  # nothing temporary is left


def change_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def change_tensor(name: str, edit: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "adapters.safetensors")
        save_file(tensors | {name: edit(tensors[name]).contiguous()}, folder / "adapters.safetensors")

    return change


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (change_config(format="melbo-bank"), "format 'melbo-adapters'"),
        (change_config(format_version=2), "newer than this melbo"),
        (change_config(radius=float("nan")), "NaN is not a JSON number"),
        (change_config(radius=-1.0), "radius"),
        (change_config(radius=9.0), "norm 9"),
        (change_config(in_features=0), "in_features"),
        (change_config(modules=["one"]), "modules"),
        (change_config(base_model=None), "damaged"),
        (change_config(config={"n_adapters": 10**8}), "do not fit"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "no adapters at"),
        (lambda folder: (folder / "adapters.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / "adapters.safetensors").write_bytes(b"abc"), "damaged or cut short"),
        (change_tensor("a", lambda t: t[:, :1]), "asks for F32"),
        (change_tensor("b", lambda t: t.half()), "asks for F32"),
        (change_tensor("a", lambda t: t * 2), "a is not of norm 1"),
        (change_tensor("objective", lambda t: t * float("nan")), "NaN"),
    ],
)
def test_damaged_folders_are_named_errors(
    banks: dict[str, AdapterBank], tmp_path: Path, damage: Callable[[Path], None], text: str
) -> None:
    folder = banks["attention"].save(tmp_path / "bank")
    damage(folder)
    with pytest.raises(BankError, match=text):
        AdapterBank.load(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_loads_the_export_and_gives_the_same_logits(
    tiny: LoadedModel, gpt2: LoadedModel, tmp_path: Path, family: str, kind: AdapterKind
) -> None:
    loaded = tiny if family == "llama" else gpt2
    bank = discover_adapters(loaded, AdapterConfig(n_adapters=2, kind=kind, steps=4, first_layer=0), PROMPTS)
    ids = encode(loaded.tokenizer, PROMPTS[0], 256)[None]
    with torch.no_grad():
        plain = loaded.model(ids).logits
        with apply(loaded, bank, [1], -1.5):
            ours = loaded.model(ids).logits
        folder = export_peft(bank, 1, tmp_path / "peft", -1.5)
        theirs = PeftModel.from_pretrained(copy.deepcopy(loaded.model), str(folder))
        close = {"rtol": 1e-4, "atol": 1e-4 * float(ours.abs().max())}
        assert torch.allclose(theirs(ids).logits, ours, **close)
        assert torch.allclose(theirs.merge_and_unload()(ids).logits, ours, **close)
    assert float((ours - plain).abs().max()) > 100 * close["atol"]
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["fan_in_fan_out"] == (family == "gpt2")  # peft would correct it, with a warning


def test_the_commands_find_save_and_export(tiny: LoadedModel, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    out, exported = str(tmp_path / "out"), str(tmp_path / "exported")
    find = ["adapters", "--model", str(tmp_path / "model"), "--n-adapters", "2", "--steps", "2", "--out", out]
    done = CliRunner().invoke(app, [*find, "--kind", "mlp", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "2 mlp adapters on blocks 1 to 1" in done.output and "random adapters" in done.output
    assert len(AdapterBank.load(out)) == 2
    assert CliRunner().invoke(app, ["export-peft", out, "1", "--out", exported, "--scale", "-1"]).exit_code == 0
    assert {p.name for p in Path(exported).iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    for command, text in ((find, "is not empty"), (["export-peft", out, "2", "--out", out + "2"], "0 to 1")):
        failed = CliRunner().invoke(app, command)
        assert failed.exit_code == 2 and text in failed.output


def test_a_stopped_command_goes_on(tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("melbo.cli.arguments.load_model", lambda *_a, **_k: tiny)
    find = ["adapters", "--n-adapters", "2", "--steps", "3", "--out", str(tmp_path / "out")]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    for place, text in (
        ("melbo.runs.checkpoint.Run.restore", "nothing was saved"),  # before the first step
        ("melbo.discovery.adapters.AdapterProblem.displacement", "run the same command again"),  # after the last
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, stop)
            stopped = CliRunner().invoke(app, find)
        assert stopped.exit_code == 130 and text in stopped.output
    resumed = CliRunner().invoke(app, find)
    assert resumed.exit_code == 0 and "going on from" in resumed.output
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # the checkpoint is gone
