"""Banks of foreign vectors: measured as our own are, in the right layers; and both commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig, from_published_layers
from melbo.errors import BankError, ConfigError
from melbo.formats.import_vectors import import_vectors
from melbo.formats.read_vectors import ForeignVectors, read_vectors
from melbo.formats.writers.arrays import export_safetensors
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat, encode
from support.tiny import MakeTiny

PROMPT = chat(BOMB)


def foreign(vectors: Tensor, layer: int | None = 1) -> ForeignVectors:
    return ForeignVectors(vectors, layer, "pt")


def test_a_bank_that_goes_out_and_comes_in_again_is_the_same(
    tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path
) -> None:
    path = export_safetensors(tiny_bank.vectors, tmp_path / "v", tiny_bank.layer, "tiny")
    again = import_vectors(tiny, read_vectors(path), DiscoveryConfig(), [PROMPT], "v")
    assert torch.equal(again.vectors, tiny_bank.vectors) and again.annotations == ()
    assert torch.allclose(again.objective, tiny_bank.objective, rtol=1e-4)
    assert torch.allclose(again.output_directions, tiny_bank.output_directions, atol=1e-4)
    assert again.radius == pytest.approx(tiny_bank.radius, rel=1e-5)
    assert again.config.orthogonal
    assert again.details == {"imported": {"format": "safetensors", "source": "v"}}
    again.check_fits(tiny)
    assert torch.equal(VectorBank.load(again.save(tmp_path / "bank")).vectors, again.vectors)


def published_objective(loaded: LoadedModel, vector: Tensor, source: int, target: int) -> float:
    """As the published code has it: the vector is a bias of block `source`'s MLP, hidden_states[target] is read."""
    ids = encode(loaded.tokenizer, PROMPT, loaded.context)[None]
    outputs = []
    for bias in (None, torch.nn.Parameter(vector, requires_grad=False)):
        loaded.blocks[source].mlp.down_proj.bias = bias
        with torch.no_grad():
            outputs.append(loaded.model(input_ids=ids, output_hidden_states=True).hidden_states[target])
    loaded.blocks[source].mlp.down_proj.bias = None
    return float((outputs[1] - outputs[0])[0, -2:].square().sum())


def test_the_published_layers_4_and_12_are_ours_4_and_11(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """The objective of an imported bank is what the published code reports for its file."""
    loaded = make_tiny(n_layers=16, d_model=32)
    vectors = torch.nn.functional.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(3)), dim=-1)
    torch.save(vectors, tmp_path / "v.pt")
    source, target = from_published_layers(4, 12)
    config = DiscoveryConfig(source_layer=source, target_layer=target)
    bank = import_vectors(loaded, read_vectors(tmp_path / "v.pt"), config, [PROMPT])
    assert (bank.config.source_layer, bank.config.target_layer) == (4, 11)
    expected = torch.tensor([published_objective(loaded, v, 4, 12) for v in vectors])
    assert torch.allclose(bank.objective, expected, rtol=1e-3)
    other = import_vectors(loaded, read_vectors(tmp_path / "v.pt"), replace(config, target_layer=12), [PROMPT])
    assert not torch.allclose(other.objective, expected, rtol=1e-2)


def test_vectors_of_different_norms_come_to_one_norm_and_keep_their_scale(tiny: LoadedModel) -> None:
    vectors = torch.randn(6, 64, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [[1.0], [2], [3], [4], [5], [6]]
    )
    bank = import_vectors(tiny, foreign(vectors), DiscoveryConfig(), [PROMPT])
    assert torch.allclose(bank.vectors.norm(dim=-1), torch.full((6,), bank.radius), rtol=1e-5)
    back = torch.stack([bank.vector(i, note.scale) for i, note in enumerate(bank.annotations)])
    assert torch.allclose(back, vectors, rtol=1e-5)
    assert not bank.config.orthogonal


def test_more_vectors_than_dimensions_are_imported(tiny: LoadedModel) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(70, 64, generator=torch.Generator().manual_seed(2)), dim=-1)
    assert len(import_vectors(tiny, foreign(vectors), DiscoveryConfig(), [PROMPT])) == 70


@pytest.mark.parametrize(
    ("vectors", "layer", "config", "error", "message"),
    [
        (torch.ones(1, 32), 1, {}, BankError, "32 numbers"),
        (torch.ones(1, 64), None, {}, BankError, "source-layer"),
        (torch.ones(1, 64), 1, {"source_layer": 2}, BankError, "block 1, not to that of 2"),
        (torch.ones(1, 64), 3, {}, ConfigError, "do not fit a model of 4 blocks"),
        (torch.ones(1, 64) * 1e-12, 1, {}, ConfigError, "radius"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    tiny: LoadedModel, vectors: Tensor, layer: int | None, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        import_vectors(tiny, foreign(vectors, layer), DiscoveryConfig(**config), [PROMPT])


def run(*args: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="melbo")


def refused(result: Any, word: str) -> bool:
    return result.exit_code == 2 and result.stderr.count("\n") == 1 and word in result.stderr


@pytest.fixture(scope="module")
def model(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    loaded, folder = make_tiny(context=128), tmp_path_factory.mktemp("model") / "tiny"
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("file_format", ["gguf", "repeng", "easysteer", "svec", "npy", "safetensors"])
def test_every_format_goes_out_and_in_by_command(
    file_format: str, saved_bank: Path, tiny_bank: VectorBank, model: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / f"v.{file_format}", tmp_path / "new bank"
    result = run(
        "export", saved_bank, "--format", file_format, "--vector", 3, "--scale", 1.5, "--vector", 1, "--scale", -1,
        "--out", file,
    )  # fmt: skip
    assert result.exit_code == 0 and "1.5 x mode 3 + -1 x mode 1" in result.stdout, result.output
    layer = ("--source-layer", 1) if file_format == "npy" else ()
    result = run("import", file, "--model", model, "--out", out, *layer)
    assert result.exit_code == 0 and "1 vectors at the output of block 1" in result.stdout, result.output
    expected = 1.5 * tiny_bank.vectors[3] - tiny_bank.vectors[1]
    assert torch.allclose(VectorBank.load(out).vectors[0], expected, atol=1e-5)


def test_the_original_repositorys_file_comes_in_by_command(model: Path, tmp_path: Path) -> None:
    torch.save(torch.eye(64)[:5] * 3, tmp_path / "learned.pt")
    layers = ("--source-layer", 1, "--target-layer", 3, "--published-layers")
    out = ("--out", tmp_path / "bank")
    assert run("import", tmp_path / "learned.pt", "--model", model, *out, *layers).exit_code == 0
    bank = VectorBank.load(tmp_path / "bank")
    assert (bank.config.source_layer, bank.config.target_layer, len(bank)) == (1, 2, 5)
    assert (bank.radius, bank.config.radius_unit) == (3.0, "absolute")
    again = ("import", tmp_path / "learned.pt", "--model", model, *out, *layers)
    assert refused(run(*again), "--force")
    assert run(*again, "--force").exit_code == 0
    assert refused(run("import", tmp_path / "learned.pt", "--out", tmp_path / "b", *layers[:2], layers[4]), "give both")


def test_the_model_itself_is_exported_by_command(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    assert run("export", "--model", model, "--out", tmp_path / "m.gguf").exit_code == 0
    assert (tmp_path / "m.gguf").read_bytes()[:4] == b"GGUF"


def test_wrong_exports_are_one_line(saved_bank: Path, model: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "v")
    assert refused(run("export", *out), "give either")
    assert refused(run("export", saved_bank, "--model", model, *out), "give either")
    assert refused(run("export", "--model", model, "--vector", 1, *out), "without --vector")
    assert refused(run("export", saved_bank, *out), "no vector was chosen")
    assert refused(run("export", saved_bank, "--vector", 99, *out), "vector 99")
    assert refused(run("export", saved_bank, "--format", "npy", "--scale", 2, *out), "no vector was chosen")
    assert refused(run("export", saved_bank, "--vector", 1, "--out", saved_bank / "config.json"), "exists")
    assert not (tmp_path / "v").exists()


def test_a_whole_bank_goes_out_as_rows(saved_bank: Path, tiny_bank: VectorBank, tmp_path: Path) -> None:
    assert run("export", saved_bank, "--format", "npy", "--out", tmp_path / "v.npy").exit_code == 0
    assert torch.equal(read_vectors(tmp_path / "v.npy").vectors, tiny_bank.vectors)
