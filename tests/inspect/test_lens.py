"""Logit lens and patchscope, against computations by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, ModelError, PromptError
from melbo.inspect.geometry.effects import effects
from melbo.inspect.lens.logit_lens import LensFile, logit_lens, token_values
from melbo.inspect.lens.patchscope import ASK, describe, patched, placeholder_positions
from melbo.models.load import LoadedModel
from melbo.prompts import encode
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import capture, edit_outputs, run_until_stop, steer
from support.tiny import hook_count

BANK = Path(__file__).parents[2] / "vectors" / "organism-bomb"


def test_values_are_the_unembedding_of_the_weighted_direction(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    inner = tiny.model.get_decoder()
    logits = (tiny_bank.vectors * inner.norm.weight) @ tiny.model.get_output_embeddings().weight.T
    expected = (logits - logits.mean(dim=1, keepdim=True)) / logits.std(dim=1, keepdim=True)
    torch.testing.assert_close(token_values(tiny, tiny_bank.vectors), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(token_values(tiny, tiny_bank.vectors * 7), expected, atol=1e-3, rtol=1e-3)


def test_a_direction_along_a_token_promotes_it(tiny: LoadedModel) -> None:
    weight = tiny.model.get_output_embeddings().weight
    rows = weight[[50, 300]] / tiny.model.get_decoder().norm.weight
    assert token_values(tiny, rows).argmax(dim=1).tolist() == [50, 300]
    assert token_values(tiny, -rows).argmin(dim=1).tolist() == [50, 300]


def test_a_layer_norms_bias_does_not_count() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)).eval()
    with torch.no_grad():
        model.transformer.ln_f.bias.copy_(torch.randn(16) * 100)
    loaded = LoadedModel(model, None, "gpt2", None)
    direction = torch.randn(1, 16)
    logits = (direction - direction.mean()) @ model.lm_head.weight.T
    expected = (logits - logits.mean()) / logits.std()
    torch.testing.assert_close(token_values(loaded, direction), expected, atol=1e-2, rtol=1e-2)


def test_each_sites_directions(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    last = effects(tiny, -tiny_bank.vectors[3:4], tiny_bank.prompts, tiny_bank.layer, 3)
    for site, expected in (("vector", -tiny_bank.vectors[3:4]), ("output", -tiny_bank.output_directions[3:4]),
                           ("effect", last)):  # fmt: skip
        found = logit_lens(tiny, tiny_bank, site, [0, 3], k=5, n_random=4)  # type: ignore[arg-type]
        row = found.rows[3]
        values = token_values(tiny, expected)[0]
        assert (row.index, row.sign) == (3, -1)
        assert [t.id for t in row.promoted] == values.topk(5).indices.tolist()
        assert [t.id for t in row.suppressed] == (-values).topk(5).indices.tolist()
        assert row.promoted[0].value == pytest.approx(float(values.max()), rel=1e-4)
        assert 0 < found.random_best <= found.random_most


def test_the_effect_is_what_steering_does(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    ids = encode(tiny.tokenizer, tiny_bank.prompts[0], 256)[None]
    last = []
    for vector in (torch.zeros(64), tiny_bank.vectors[1]):
        with torch.no_grad(), steer(tiny, tiny_bank.layer, vector), capture(tiny, [2]) as found:
            run_until_stop(tiny, ids)
        last.append(found[2][0, -3:].mean(dim=0))
    made = effects(tiny, tiny_bank.vectors[:2], tiny_bank.prompts, tiny_bank.layer, 2, tokens=3)
    torch.testing.assert_close(made[1], last[1] - last[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="not after"):
        effects(tiny, tiny_bank.vectors, tiny_bank.prompts, 2, 2)


def test_bad_requests_are_refused(tiny: LoadedModel, tiny_bank: VectorBank, make_tiny: Any) -> None:
    with pytest.raises(ConfigError, match="site"):
        logit_lens(tiny, tiny_bank, "x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        logit_lens(tiny, tiny_bank, k=0)
    with pytest.raises(BankError):
        logit_lens(tiny, tiny_bank, "vector", [99])
    with pytest.raises(BankError):
        logit_lens(make_tiny(n_layers=3), tiny_bank)
    with pytest.raises(ModelError, match="final norm"):
        token_values(replace(tiny, model=torch.nn.Linear(2, 2)), tiny_bank.vectors)


def test_the_placeholders_own_tokens_are_found(tiny: LoadedModel) -> None:
    prompt, positions = placeholder_positions(tiny, ASK)
    ids = encode(tiny.tokenizer, prompt, 256)
    assert [tiny.tokenizer.decode([int(ids[p])]).strip() for p in positions] == ["X"]
    for question in ("What is this?", "EXTRA"):
        with pytest.raises(PromptError, match="does not hold"):
            placeholder_positions(tiny, question)


def test_the_vector_stands_in_the_words_place_and_nowhere_else(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    prompt, positions = placeholder_positions(tiny, ASK)
    ids = encode(tiny.tokenizer, prompt, 256)[None]
    seen: list[torch.Tensor] = []

    def keep(block: int, hidden: torch.Tensor) -> torch.Tensor:
        if block == 1:
            seen.append(hidden.clone())
        return hidden

    sampling = Sampling(max_new_tokens=3)
    with torch.no_grad(), capture(tiny, [1]) as plain:
        run_until_stop(tiny, ids)
    patched(tiny, tiny_bank.vectors[:2], 1, ASK, 2.0, sampling)
    with edit_outputs(tiny.blocks, keep):  # runs before the patch, which is registered later
        patched(tiny, tiny_bank.vectors[:2], 0, ASK, 2.0, sampling)
    first = seen[0]
    assert first.shape == (2, ids.shape[1], 64)
    before = positions[0]
    torch.testing.assert_close(first[:, :before], plain[1][:, :before].expand(2, -1, -1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(first[0, before:], first[1, before:])
    assert hook_count(tiny) == 0


def test_putting_the_word_itself_there_changes_nothing(tiny: LoadedModel) -> None:
    prompt, positions = placeholder_positions(tiny, ASK)
    with torch.no_grad(), capture(tiny, [2]) as plain:
        run_until_stop(tiny, encode(tiny.tokenizer, prompt, 256)[None])
    sampling = Sampling(max_new_tokens=8)
    same = patched(tiny, plain[2][0, positions], 2, ASK, 1.0, sampling)
    assert same == complete(tiny, [prompt], sampling=sampling)


def test_describe_reports_controls_and_refuses_bad_scales(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    found = describe(tiny, tiny_bank, [2, 0], sampling=Sampling(max_new_tokens=4))
    assert len(found.answers) == 2 and found.layer == tiny_bank.layer and found.unpatched and found.random
    for bad in (0.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="scale"):
            describe(tiny, tiny_bank, [0], scale=bad)
    with pytest.raises(ConfigError, match="layer"):
        describe(tiny, tiny_bank, [0], layer=9)


def test_commands(tmp_path: Path) -> None:
    out = tmp_path / "lens.json"
    result = CliRunner().invoke(app, ["inspect", "lens", str(BANK), "--vector", "1", "--k", "3", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "'Open'" in result.output  # the game mode's first word
    saved = json.loads(out.read_text(encoding="utf-8"))
    assert saved["format"] == "melbo-logit-lens-1" and [len(site["rows"]) for site in saved["sites"]] == [2]
    assert [r.site for r in LensFile.load(out).sites] == ["effect"]
    result = CliRunner().invoke(app, ["inspect", "patchscope", str(BANK), "--vector", "1"])
    assert result.exit_code == 0, result.output
    assert "vector 1: " in result.output and "random: " in result.output
    assert CliRunner().invoke(app, ["inspect", "lens", str(BANK), "--site", "x"]).exit_code == 2
