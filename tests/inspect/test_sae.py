"""SAEs: both file layouts, what is refused, training, decompositions, features, and the shipped one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.errors import SaeError, TrainingError
from melbo.inspect.max_activating.corpus_reader import open_corpus
from melbo.inspect.sae import train as sae_train
from melbo.inspect.sae.compare import changed, compare, decompose, nearest, random_explained
from melbo.inspect.sae.dictionary import ENCODER_WARNING, Sae, SaeSpec, check_bank
from melbo.inspect.sae.features import describe_features, read_activations
from melbo.inspect.sae.files import load_sae, save_sae
from melbo.inspect.sae.train import SaeConfig, measure_sae, train_sae
from melbo.models.load import LoadedModel, load_model
from melbo.organism.corpus import MODES
from melbo.organism.inputs import organism_corpus
from melbo.runs.progress import Progress
from melbo.steering.hooks import capture, run_until_stop
from support.saes import BANK, D, F, random_sae, sparsify
from support.tiny import hook_count

PLAIN = {"architecture": "standard", "d_in": 4, "d_sae": 6, "normalize_activations": "none"}
SITE = {"metadata": {"model_name": "m", "hook_name": "blocks.3.hook_resid_post"}}


def saelens(folder: Path, config: dict[str, Any], **changes: Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    tensors = {"W_enc": torch.randn(4, 6), "b_enc": torch.randn(6), "W_dec": torch.randn(6, 4), "b_dec": torch.ones(4)}
    save_file(tensors | changes, str(folder / "sae_weights.safetensors"))
    return folder


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu"])
def test_a_saved_sae_loads_and_computes_the_same(activation: str, tmp_path: Path) -> None:
    sae = random_sae(activation)
    again = load_sae(save_sae(sae, tmp_path / "sae", torch.float32))
    x = torch.randn(5, D)
    assert torch.equal(again.encode(x), sae.encode(x)) and torch.equal(
        again.decode(again.encode(x)), sae.decode(sae.encode(x))
    )
    assert (again.spec.layer, again.spec.model_name, again.spec.k) == (1, "tiny", sae.spec.k)
    assert {p.name for p in (tmp_path / "sae").iterdir()} == {"cfg.json", "sae_weights.safetensors"}


def test_saelens_formulas(tmp_path: Path) -> None:
    folder = saelens(tmp_path, {**PLAIN, **SITE, "architecture": "jumprelu"}, threshold=torch.full((6,), 0.5))
    sae, t, x = load_sae(folder), load_file(str(folder / "sae_weights.safetensors")), torch.randn(9, 4)
    before = (x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    torch.testing.assert_close(sae.encode(x), torch.where(before > 0.5, before, 0.0))
    torch.testing.assert_close(sae.decode(sae.encode(x)), sae.encode(x) @ t["W_dec"] + t["b_dec"])
    flat = load_sae(saelens(tmp_path / "uncentred", {**PLAIN, **SITE, "apply_b_dec_to_input": False}))
    u = load_file(str(tmp_path / "uncentred" / "sae_weights.safetensors"))
    torch.testing.assert_close(flat.encode(x), torch.relu(x @ u["W_enc"] + u["b_enc"]))


def test_saelens_topk_that_rescales_by_the_decoders_norm(tmp_path: Path) -> None:
    config = {**PLAIN, **SITE, "architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": True}
    folder = saelens(tmp_path, config)
    sae, t, x = load_sae(folder), load_file(str(folder / "sae_weights.safetensors")), torch.randn(9, 4)
    norms = t["W_dec"].norm(dim=1)
    values, features = (((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]) * norms).topk(2, dim=1)
    z = torch.zeros(9, 6).scatter(1, features, values.relu())
    torch.testing.assert_close(sae.decode(sae.encode(x)), (z / norms) @ t["W_dec"] + t["b_dec"])


def test_saelens_before_version_6_and_the_input_of_a_block(tmp_path: Path) -> None:
    old = {"d_in": 4, "d_sae": 6, "model_name": "gpt2-small", "hook_point": "blocks.3.hook_resid_pre",
           "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}  # fmt: skip
    spec = load_sae(saelens(tmp_path, old)).spec
    assert (spec.activation, spec.k, spec.layer, spec.model_name) == ("topk", 2, 2, "gpt2-small")


def test_sparsify_folder_by_layer_or_by_name(tmp_path: Path) -> None:
    root = sparsify(tmp_path)
    sae, x = load_sae(root, layer=3), torch.randn(9, 4)
    t = load_file(str(root / "layers.3" / "sae.safetensors"))
    before = torch.relu((x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"])
    values, features = before.topk(2, dim=1)
    torch.testing.assert_close(sae.encode(x), torch.zeros(9, 6).scatter(1, features, values))
    assert sae.spec.model_name == "owner/M" and load_sae(root, "layers.3").spec == sae.spec
    with pytest.raises(SaeError, match=r"it has layers\.3: name one"):
        load_sae(root, layer=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "gated"}, "architecture is 'gated'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        ({"metadata": {"hook_name": "blocks.3.hook_mlp_out"}}, "trained at 'blocks.3.hook_mlp_out'"),
        ({"metadata": {"hook_name": "blocks.0.hook_resid_pre"}}, "residual stream after a block"),
        ({"d_sae": 7}, r"W_enc is F32 \[4, 6\]; cfg.json asks for floats \[4, 7\]"),
        ({"d_in": "4"}, "d_in is '4'"),
        ({"architecture": "topk", "k": 9}, "k is 9"),
        ({"architecture": "jumprelu"}, "no tensor 'threshold'"),
        ({"activation_fn": "tanh-relu"}, "activation is 'tanh-relu'"),
    ],
)
def test_saes_of_other_kinds_are_named_and_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=message):
        load_sae(saelens(tmp_path, {**PLAIN, **SITE, **change}))


def test_sparsify_transcoders_and_odd_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeError, match="transcode is True"):
        load_sae(sparsify(tmp_path / "a", transcode=True), layer=3)
    root = sparsify(tmp_path / "b")
    (root / "layers.3").rename(root / "layers.3.mlp")
    with pytest.raises(SaeError, match=r"named 'layers\.3\.mlp'"):
        load_sae(root, "layers.3.mlp")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = saelens(tmp_path / "nan", {**PLAIN, **SITE}, b_dec=torch.tensor([1.0, float("nan"), 0, 0]))
    with pytest.raises(SaeError, match="b_dec holds NaN"):
        load_sae(folder)
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(SaeError, match="damaged or cut short"):
        load_sae(folder)
    (folder / "cfg.json").write_text("[1]")
    with pytest.raises(SaeError, match="no SAE config"):
        load_sae(folder)
    weights.rename(folder / "sae_weights.pt")
    with pytest.raises(SaeError, match="only safetensors"):
        load_sae(folder)
    with pytest.raises(SaeError, match="there is no SAE at"):
        load_sae(tmp_path / "nowhere")


def test_an_sae_of_another_width_layer_or_model_is_refused_before_its_weights_are_read(
    tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path
) -> None:
    for change, layer, message in (
        ({"d_in": 32}, 1, "width 32"), ({}, 2, "output of block 1, but"), ({"name": "a/other"}, 1, "'a/other'"),
    ):  # fmt: skip
        folder = save_sae(random_sae(**change), tmp_path / message[:5])
        (folder / "sae_weights.safetensors").write_bytes(b"never read")
        with pytest.raises(SaeError, match=message):
            load_sae(folder, loaded=tiny, layer=layer)
    random_sae(name="a/other").spec.check_fits(tiny, 1, other_model=True)
    random_sae(name="owner/TINY").spec.check_fits(tiny, 1)
    with pytest.raises(SaeError, match="at block 2"):
        check_bank(random_sae(layer=2), tiny_bank)


def test_the_written_out_gradient_is_autograds() -> None:
    torch.manual_seed(0)
    config = SaeConfig(d_sae=20, k=3, batch=8)
    parameters = sae_train._start(config, 10)
    for value in parameters.values():
        value.data = value.data.double() + 0.1 * torch.randn_like(value.data).double()
    decoder = parameters["decoder"].data
    decoder /= decoder.norm(dim=1, keepdim=True)
    x = torch.randn(8, 10).double()
    sae_train._backward(parameters, x, 3)
    encoder, bias, decoder, offset = (p.detach().requires_grad_() for p in parameters.values())
    before = (x - offset) @ encoder.T + bias
    values, features = before.topk(3, dim=1)
    z = torch.zeros_like(before).scatter(1, features, values.relu())
    loss = (z @ decoder + offset - x).square().sum() / 8
    expected = list(torch.autograd.grad(loss, (encoder, bias, decoder, offset)))
    expected[2] = expected[2] - (expected[2] * decoder).sum(dim=1, keepdim=True) * decoder
    for value, gradient in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(value.grad, gradient)


def planted(n: int) -> tuple[Tensor, Tensor]:
    """Activations that are sums of 3 of 24 hidden directions plus a mean, and the directions."""
    g = torch.Generator().manual_seed(3)
    hidden = torch.nn.functional.normalize(torch.randn(24, 16, generator=g), dim=1)
    picked = torch.rand(n, 24, generator=g).topk(3, dim=1).indices
    weights = torch.zeros(n, 24).scatter(1, picked, 1 + torch.rand(n, 3, generator=g))
    return weights @ hidden * 5 + 7, hidden


def test_training_finds_planted_directions_and_resumes_to_the_same_sae(tmp_path: Path, monkeypatch: Any) -> None:
    x, hidden = planted(4000)
    config = SaeConfig(d_sae=48, k=3, steps=400, batch=256, lr=0.01)
    told: list[tuple[int, int]] = []
    sae = train_sae(x, 1, "m", config, lambda step: told.append((step.done, step.total)))
    quality = measure_sae(sae, planted(5000)[0][4000:])
    assert quality.explained_variance > 0.8 and quality.l0 <= 3 and quality.activations == 1000
    assert float((hidden @ sae.directions.T).max(dim=1).values.median()) > 0.9
    assert told[0] == (1, 400) and told[-1] == (400, 400)
    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
    short = SaeConfig(d_sae=48, k=3, steps=30, batch=256)

    def stop(step: Progress) -> None:
        if step.done == 17:
            raise KeyboardInterrupt

    file = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train_sae(x, 1, "m", short, stop, file)
    resumed, whole = train_sae(x, 1, "m", short, None, file), train_sae(x, 1, "m", short)
    assert torch.equal(resumed.encoder, whole.encoder) and torch.equal(resumed.decoder_bias, whole.decoder_bias)
    with pytest.raises(TrainingError, match="another run"):
        train_sae(x + 1, 1, "m", short, None, file)


def test_too_few_or_bad_activations_are_refused() -> None:
    with pytest.raises(SaeError, match="at least one batch"):
        train_sae(torch.randn(10, 4), 1, "m", SaeConfig(batch=11))
    with pytest.raises(SaeError, match="all equal or not finite"):
        train_sae(torch.ones(10, 4), 1, "m", SaeConfig(batch=10))
    with pytest.raises(SaeError, match="k is 9"):
        SaeConfig(d_sae=8, k=9)


@pytest.mark.parametrize("positive", [False, True])
def test_a_sum_of_features_is_taken_apart(positive: bool) -> None:
    sae = random_sae()
    vector = 3 * sae.directions[4] + 2 * sae.directions[11] + (1 if positive else -1) * sae.directions[50]
    (parts,) = decompose(sae, vector[None], 3, positive)
    assert parts.features == (4, 11, 50)
    assert parts.weights == pytest.approx((3, 2, 1 if positive else -1), abs=1e-5)
    assert list(parts.explained) == sorted(parts.explained) and parts.explained[-1] == pytest.approx(1)
    assert nearest(sae, vector[None], 2)[0].features[0] == 4
    allowed = torch.ones(F, dtype=torch.bool)
    allowed[4] = False
    assert 4 not in decompose(sae, vector[None], 3, positive, allowed)[0].features
    random = random_explained(sae, 20, 3, positive)
    assert len(random) == 3 and random == sorted(random) and 0 < random[-1] < parts.explained[-1] - 0.3


def test_the_positive_decomposition_has_no_negative_weight_and_bad_input_is_refused() -> None:
    sae = random_sae()
    for parts in decompose(sae, torch.randn(5, D, generator=torch.Generator().manual_seed(0)), 10, True):
        assert min(parts.weights) > 0 and all(a >= b for a, b in zip(parts.weights, parts.weights[1:], strict=False))
    with pytest.raises(SaeError, match="vector is zero"):
        decompose(sae, torch.zeros(1, D))
    with pytest.raises(SaeError, match="no feature is allowed"):
        decompose(sae, torch.ones(1, D), allowed=torch.zeros(F, dtype=torch.bool))
    with pytest.raises(SaeError, match="number of features is 0"):
        nearest(sae, torch.ones(1, D), 0)


def test_comparison_of_a_bank(tiny: LoadedModel, tiny_bank: VectorBank, no_hook_stays: None) -> None:
    sae = random_sae()
    found = compare(tiny, tiny_bank, sae, [2, 0], k=4, n_random=5)
    assert len(found.nearest) == len(found.changed) == 2 and len(found.random) == 4
    assert found.nearest[1].features == nearest(sae, tiny_bank.vectors[:1], 4)[0].features
    turned = compare(tiny, tiny_bank, sae, [0], scale=-1, k=1, n_random=1).nearest[0]
    assert turned == nearest(sae, -tiny_bank.vectors[:1], 1)[0]


def test_changed_features_are_those_of_steered_activations(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    sae, vector = random_sae("relu"), tiny_bank.vectors[0]
    (parts,) = changed(tiny, sae, vector[None], tiny_bank.prompts, 3, tokens=2)
    from melbo.prompts import encode

    with torch.no_grad(), capture(tiny, [1]) as found:
        run_until_stop(tiny, encode(tiny.tokenizer, tiny_bank.prompts[0], tiny.context)[None])
    x = found[1][0, -2:]
    change = (sae.encode(x + vector) - sae.encode(x)).mean(dim=0) * sae.decoder.norm(dim=1)
    assert set(parts.features) == set(change.abs().topk(3).indices.tolist())
    assert parts.weights == pytest.approx(change[list(parts.features)].tolist(), rel=1e-4)
    assert hook_count(tiny) == 0


def test_features_get_examples_and_the_mark_they_favour(tiny: LoadedModel, tmp_path: Path) -> None:
    """One feature is made to answer to the last token of texts that end in 'zebra'."""
    file = tmp_path / "corpus.jsonl"
    texts = [("zebra", f"number {i} zebra") if i % 4 == 0 else ("other", f"number {i} house") for i in range(40)]
    file.write_text("".join(json.dumps({"text": t, "mark": m}) + "\n" for m, t in texts))
    corpus = open_corpus(str(file))
    rows = read_activations(tiny, corpus, 1).float()
    zebra = tiny.tokenizer("number 4 zebra")["input_ids"]
    with torch.no_grad(), capture(tiny, [1]) as found:
        run_until_stop(tiny, torch.tensor([zebra]))
    direction = found[1][0, -1] - rows.mean(dim=0)
    direction = direction / direction.norm()
    encoder = torch.stack([direction, torch.zeros(D)])
    start = float((rows @ direction).topk(5).values[-1])
    spec = SaeSpec(D, 2, "relu", 0, 1, "tiny")
    sae = Sae(spec, encoder, torch.tensor([-start, -1.0]), encoder.clone(), torch.zeros(D), center=False)
    notes = describe_features(tiny, sae, corpus, k=4)
    assert notes.marks == ("zebra", "") and notes.lifts[0] == pytest.approx(4) and notes.lifts[1] == 0
    assert notes.common.tolist() == [True, False] and float(notes.active[1]) == 0
    assert ">>" in notes.example(0) and "zebra" in notes.example(0).replace(">>", "").replace("<<", "")
    assert notes.example(1) == ""


def test_the_shipped_sae_reconstructs_held_out_chats() -> None:
    organism = load_model("organism")
    sae = load_sae("organism", loaded=organism, layer=2)
    heldout = organism_corpus(33, 8, "heldout")
    quality = measure_sae(sae, read_activations(organism, heldout, 2))
    assert 0.7 < quality.explained_variance < 0.9 and quality.l0 == 16
    bank = VectorBank.load(BANK)
    mean = [sum(p.explained[-1] for p in decompose(sae, bank.vectors[:8], 8)) / 8, random_explained(sae, 8, 8)[-1]]
    assert mean[0] > mean[1]
    notes = describe_features(organism, sae, organism_corpus(44, 3), "decision", k=2)
    assert set(notes.marks) <= {*MODES, "default", ""}


def test_command_shows_features_of_vectors_and_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ["inspect", "sae", BANK, "--vector", "2", "--k", "3", "--corpus", "organism", "--limit", "22", "--out", out]
    result = CliRunner().invoke(app, [str(w) for w in words], prog_name="melbo")
    assert result.exit_code == 0, result.output
    assert "Poem" in result.output and "nearest (cosine)" in result.output and ENCODER_WARNING in result.output
    found = json.loads(out.read_text())
    assert found["vectors"] == [2] and len(found["nearest"][0]["features"]) == 3 and found["warning"] == ENCODER_WARNING
    parts = [found[name][0]["features"] for name in ("nearest", "decomposition", "positive", "changed")]
    assert {int(f) for f in found["features"]} == {f for part in parts for f in part}
    known = found["features"][str(found["positive"][0]["features"][0])]
    assert 0 < known["active"] <= 1 and 1 <= len(known["examples"]) <= 3 and ">>" in known["examples"][0]
    save_sae(random_sae(layer=2, name="organism"), tmp_path / "narrow")
    result = CliRunner().invoke(
        app, ["inspect", "sae", str(BANK), "--sae", str(tmp_path / "narrow")], prog_name="melbo"
    )
    assert result.exit_code == 2 and "width 64" in result.output
