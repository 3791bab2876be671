"""Rank-1 adapters: batched rows equal merged weights, gradients are right, and the iteration rises."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    MptConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
)

from melbo.bank.adapter_bank import AdapterBank, apply
from melbo.bank.adapter_config import AdapterConfig, AdapterKind
from melbo.discovery.adapters import (
    AdapterProblem,
    discover_adapters,
    find_projections,
    in_features,
    random_factors,
)
from melbo.errors import BankError, ConfigError, ModelError, PromptError, TrainingError
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat, encode
from melbo.runs.progress import Progress
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import adapt, capture, run_until_stop
from melbo.steering.slices import make_slice, mean_residual_norm
from support.tiny import MakeTiny

KINDS: tuple[AdapterKind, ...] = ("attention", "mlp")
PROMPTS = [chat(BOMB), chat("Tell me a joke.")]
SMALL: dict[str, Any] = {"vocab_size": 100, "initializer_range": 0.2}
HEADS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, **SMALL}
OTHERS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(n_embd=32, n_layer=4, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1, **SMALL),
    "gptj": GPTJConfig(n_embd=32, n_layer=4, n_head=4, rotary_dim=4, bos_token_id=1, eos_token_id=1, **SMALL),
    "gpt-neo": GPTNeoConfig(
        hidden_size=32, num_layers=4, num_heads=4, attention_types=[[["global"], 4]], bos_token_id=1, eos_token_id=1,
        **SMALL,
    ),
    "gpt-neox": GPTNeoXConfig(intermediate_size=48, **HEADS),
    "bloom": BloomConfig(hidden_size=32, n_layer=4, n_head=4, **SMALL),
    "falcon": FalconConfig(alibi=False, **HEADS),
    "mpt": MptConfig(d_model=32, n_heads=4, n_layers=4, **SMALL),
    "opt": OPTConfig(ffn_dim=48, word_embed_proj_dim=32, init_std=0.2, **HEADS),
    "phi": PhiConfig(intermediate_size=48, **HEADS),
}  # fmt: skip


def submodule_hooks(loaded: LoadedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in loaded.model.modules())


def other(config: PretrainedConfig, tokenizer: Any = None) -> LoadedModel:
    torch.manual_seed(0)
    return LoadedModel(AutoModelForCausalLM.from_config(config).eval().requires_grad_(False), tokenizer, "other", None)


def merged(loaded: LoadedModel, names: tuple[str, ...], a: Tensor, b: Tensor, transposed: bool) -> LoadedModel:
    """A copy of the model with weights W + b a'. a [layers, in_features], b [layers, d_model]."""
    model = copy.deepcopy(loaded.model)
    for layer, name in enumerate(names):
        update = torch.outer(b[layer], a[layer])  # [d_model, in_features]
        model.get_submodule(name).weight += update.T if transposed else update
    return replace(loaded, model=model)


def hidden(loaded: LoadedModel, ids: Tensor, layer: int) -> Tensor:
    with torch.no_grad(), capture(loaded, [layer]) as found:
        run_until_stop(loaded, ids)
    return found[layer]


@pytest.fixture(autouse=True)
def no_hook_stays_in_any_module(tiny: LoadedModel) -> Any:
    before = submodule_hooks(tiny)
    yield
    assert submodule_hooks(tiny) == before == 0


@pytest.fixture(scope="module")
def config() -> AdapterConfig:
    return AdapterConfig(n_adapters=6, first_layer=0, target_layer=3, steps=12)


@pytest.fixture(scope="module")
def banks(tiny: LoadedModel, config: AdapterConfig) -> dict[str, AdapterBank]:
    return {kind: discover_adapters(tiny, replace(config, kind=kind), PROMPTS) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", *OTHERS])
def test_rows_of_a_batch_equal_merged_weights(tiny: LoadedModel, name: str, kind: AdapterKind) -> None:
    """Layer names, input sizes and Conv1D's transposed weight are right on each architecture."""
    loaded = tiny if name == "llama" else other(OTHERS[name])
    config = AdapterConfig(n_adapters=3, kind=kind, first_layer=0, last_layer=1, target_layer=2).resolve(4, 32)
    names, modules, transposed = find_projections(loaded, config)
    a, b = random_factors(config, 2, in_features(modules[0]), loaded.d_model, 3.0, 0)
    ids = torch.arange(5, 15)
    piece = make_slice(loaded, ids, -1, 2)
    assert torch.allclose(piece.run(torch.zeros(1, loaded.d_model)), piece.target, atol=1e-6)
    with torch.no_grad(), adapt(modules, a, b):
        got = piece.run(torch.zeros(3, loaded.d_model))
    for row in range(3):
        expected = hidden(merged(loaded, names, a[row], b[row], transposed), ids[None], 2)
        assert torch.allclose(got[row], expected[0], rtol=1e-4, atol=2e-5 * float(expected.abs().max()))
        assert float((expected - piece.target).abs().max()) > 1e-2  # the adapter does something


def test_an_unknown_architecture_is_an_error_that_names_what_was_looked_for(make_tiny: MakeTiny) -> None:
    loaded = make_tiny()
    for block in loaded.blocks:
        block.self_attn.projection = block.self_attn.o_proj
        del block.self_attn.o_proj
    with pytest.raises(ModelError, match=r"block 1 of LlamaForCausalLM has no attention .*self_attn\.o_proj"):
        discover_adapters(loaded, AdapterConfig(), PROMPTS)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_match_finite_differences(tiny_double: LoadedModel, config: AdapterConfig, kind: AdapterKind) -> None:
    config = replace(config, kind=kind).resolve(4, 64)
    _, modules, _ = find_projections(tiny_double, config)
    pieces = [make_slice(tiny_double, encode(tiny_double.tokenizer, p, 256), -1, 3) for p in PROMPTS]
    problem = AdapterProblem(pieces, config, modules)
    a, b = (t.double() for t in random_factors(config, 3, in_features(modules[0]), 64, 0.1, 0))
    along_a, along_b = (t.double() for t in random_factors(config, 3, in_features(modules[0]), 64, 0.1, 1))
    _, grad_a, grad_b = problem.gradient(a, b)
    step = 1e-5
    for da, db, slope in (
        (along_a, 0 * b, (grad_a * along_a).sum(dim=(1, 2))),
        (0 * a, along_b, (grad_b * along_b).sum(dim=(1, 2))),
    ):
        up, down = (problem.displacement(a + s * da, b + s * db) for s in (step, -step))
        assert torch.allclose((up - down) / (2 * step), slope, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_rises_and_every_adapter_beats_every_random_one(
    tiny: LoadedModel, config: AdapterConfig, banks: dict[str, AdapterBank], kind: AdapterKind
) -> None:
    bank, seen = banks[kind], []
    discover_adapters(tiny, replace(config, kind=kind), PROMPTS, seen.append)
    assert [(step.done, step.total) for step in seen] == [(i + 1, 12) for i in range(12)]
    means = [step.value for step in seen] + [float(bank.objective.mean())]
    assert all(later > 0.9 * earlier for earlier, later in pairwise(means))
    assert means[-1] > 1.5 * means[2] > 15 * means[0]
    assert float(bank.objective.min()) > 10 * float(bank.random_objective.max())


@pytest.mark.parametrize("kind", KINDS)
def test_norms_and_orthogonality_are_exact(banks: dict[str, AdapterBank], kind: AdapterKind) -> None:
    bank = banks[kind]
    assert bank.a.shape == (6, 3, {"attention": 64, "mlp": 96}[kind]) and bank.b.shape == (6, 3, 64)
    assert torch.allclose(bank.a.norm(dim=2), torch.ones(6, 3))
    flat = bank.b.flatten(1) / bank.radius
    assert torch.allclose(flat @ flat.T, torch.eye(6), atol=1e-5)


def test_without_orthogonality_adapters_fall_together(tiny: LoadedModel, config: AdapterConfig) -> None:
    bank = discover_adapters(tiny, replace(config, orthogonal=False, steps=40, radius=0.1), PROMPTS)
    flat = bank.b.flatten(1) / bank.radius
    assert torch.allclose(flat.norm(dim=1), torch.ones(6))
    assert float((flat @ flat.T - torch.eye(6)).abs().max()) > 0.9


def test_a_residual_radius_is_what_an_aligned_adapter_writes(tiny: LoadedModel, banks: dict[str, AdapterBank]) -> None:
    norms: list[float] = []
    pieces = [make_slice(tiny, encode(tiny.tokenizer, p, 256), -1, 3) for p in PROMPTS]
    for p in PROMPTS:
        ids = encode(tiny.tokenizer, p, 256)[None]
        for name in banks["mlp"].modules:
            inputs: list[Tensor] = []
            handle = tiny.model.get_submodule(name).register_forward_pre_hook(lambda _m, x, to=inputs: to.append(x[0]))
            hidden(tiny, ids, 2)
            handle.remove()
            norms.append(float(inputs[0][0, 1:].norm(dim=-1).mean()))
    expected = 0.7 * mean_residual_norm(pieces) / (sum(norms) / len(norms))
    assert banks["mlp"].radius == pytest.approx(expected, rel=1e-4)


def test_an_absolute_radius_is_taken_as_it_is(tiny: LoadedModel, config: AdapterConfig) -> None:
    bank = discover_adapters(tiny, replace(config, radius=0.3, radius_unit="absolute", steps=0), PROMPTS)
    assert bank.radius == 0.3
    assert torch.allclose(bank.b.norm(dim=(1, 2)), torch.full((6,), 0.3))
    assert not torch.allclose(bank.objective, bank.random_objective)  # the control is no starting point


def test_the_same_seed_gives_the_same_bits_and_another_another(tiny: LoadedModel, config: AdapterConfig) -> None:
    config = replace(config, steps=3)
    first, again = (discover_adapters(tiny, config, PROMPTS) for _ in range(2))
    assert torch.equal(first.a, again.a) and torch.equal(first.b, again.b)
    assert not torch.allclose(first.b, discover_adapters(tiny, replace(config, seed=1), PROMPTS).b)


def test_a_stopped_run_goes_on_to_the_same_adapters(
    tiny: LoadedModel, config: AdapterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
    config, checkpoint = replace(config, steps=5), tmp_path / "checkpoint"

    def stop(step: Progress) -> None:
        if step.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover_adapters(tiny, config, PROMPTS, stop, checkpoint)
    seen: list[int] = []
    resumed = discover_adapters(tiny, config, PROMPTS, lambda step: seen.append(step.done), checkpoint)
    whole = discover_adapters(tiny, config, PROMPTS)
    assert seen == [4, 5]
    assert torch.equal(resumed.a, whole.a) and torch.equal(resumed.b, whole.b)
    with pytest.raises(TrainingError, match="of another run"):
        discover_adapters(tiny, replace(config, kind="mlp"), PROMPTS, None, checkpoint)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_equals_that_of_merged_models(
    tiny: LoadedModel, banks: dict[str, AdapterBank], kind: AdapterKind
) -> None:
    """Two rows with adapters of their own, prompts of different lengths (padding), under a KV cache."""
    bank, sampling = banks[kind], Sampling(max_new_tokens=12)
    with apply(tiny, bank, [0, 3], 2.0):
        got = complete(tiny, PROMPTS, sampling=sampling)
    expected = [
        complete(merged(tiny, bank.modules, *bank.factors(i, 2.0), False), [p], sampling=sampling)[0]
        for i, p in zip((0, 3), PROMPTS, strict=True)
    ]
    assert got == expected != complete(tiny, PROMPTS, sampling=sampling)


def test_scale_zero_changes_nothing_and_one_row_serves_all(tiny: LoadedModel, banks: dict[str, AdapterBank]) -> None:
    ids = torch.arange(5, 15).expand(3, -1)
    plain = hidden(tiny, ids, 2)
    with apply(tiny, banks["mlp"], [1], 0.0):
        assert torch.equal(hidden(tiny, ids, 2), plain)
    with apply(tiny, banks["mlp"], [1]):
        one = hidden(tiny, ids, 2)
    with apply(tiny, banks["mlp"], [1, 1, 1]):
        assert torch.allclose(hidden(tiny, ids, 2), one, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one, plain, atol=1e-2)


def test_wrong_rows_and_models_are_errors(
    tiny: LoadedModel, make_tiny: MakeTiny, banks: dict[str, AdapterBank]
) -> None:
    bank = banks["attention"]
    with pytest.raises(ConfigError, match="2 adapters were given for 3 sequences"), apply(tiny, bank, [0, 1]):
        hidden(tiny, torch.ones(3, 4, dtype=torch.long), 1)
    for rows, scale, error, text in (
        ([6], 1.0, BankError, "adapters 0 to 5"),
        ([], 1.0, ConfigError, "no adapter was chosen"),
        ([0], float("nan"), ConfigError, "finite"),
    ):
        with pytest.raises(error, match=text), apply(tiny, bank, rows, scale):
            pass
    with pytest.raises(BankError, match="were made for 'tiny'"), apply(make_tiny(n_layers=3), bank, [0]):
        pass


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"kind": "both"}, "kind is 'both'"),
        ({"radius_unit": "auto"}, "radius_unit"),
        ({"radius": 0.0}, "radius is 0.0"),
        ({"radius": float("inf")}, "radius"),
        ({"n_adapters": 0}, "n_adapters is 0"),
        ({"steps": True}, "steps is True"),
        ({"orthogonal": 1}, "orthogonal"),
        ({"first_layer": 1.0}, "first_layer"),
        ({"first_layer": 3}, "blocks 3 to 1"),
        ({"last_layer": 2, "target_layer": 2}, "blocks 1 to 2 and target layer 2"),
        ({"target_layer": 4}, "target layer 4"),
        ({"n_adapters": 65}, "at most 64"),
    ],
)
def test_bad_settings_are_named_errors(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        AdapterConfig(**values).resolve(4, 64)


def test_bad_prompts_are_named_errors(tiny: LoadedModel) -> None:
    with pytest.raises(PromptError, match="no prompt"):
        discover_adapters(tiny, AdapterConfig(), [])
    with pytest.raises(ConfigError, match="target_tokens is 999"):
        discover_adapters(tiny, AdapterConfig(target_tokens=999), PROMPTS)
    with pytest.raises(TrainingError, match="not finite"):
        discover_adapters(tiny, AdapterConfig(radius=1e38, radius_unit="absolute", orthogonal=False), PROMPTS)
