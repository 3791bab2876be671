"""Every architecture that is promised to work, as a tiny random model: slices, discovery, steering, bfloat16.

One row of MODELS per architecture or variant of one; each runs with every attention transformers has for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import discover, random_control
from melbo.discovery.problem import Problem
from melbo.errors import ModelError
from melbo.models.load import LoadedModel, find_blocks, load_model
from melbo.prompts import BOMB, chat, encode
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import run_until_stop, steer
from melbo.steering.slices import make_slice
from support.slice_cases import PAIRS, draw_vectors, steered_target
from support.tiny import hook_count

BASE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
LLAMA = BASE | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
WINDOW: dict[str, Any] = {"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"] * 2}
OPT = BASE | {"ffn_dim": 48, "init_std": 0.2, "max_position_embeddings": 256, "activation_function": "gelu"}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", LLAMA),
    "qwen2": ("Qwen2Config", LLAMA | WINDOW | {"use_sliding_window": True}),
    "qwen3": ("Qwen3Config", LLAMA | {"head_dim": 8}),
    "mistral": ("MistralConfig", LLAMA | {"sliding_window": 8}),
    "gemma2": ("Gemma2Config", LLAMA | WINDOW | {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", LLAMA | WINDOW | {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "phi3": ("Phi3Config", LLAMA | {"sliding_window": 8}),
    "olmo2": ("Olmo2Config", LLAMA),
    "smollm3": ("SmolLM3Config", LLAMA | {"no_rope_layer_interval": 2}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}),
    "gpt_neox": ("GPTNeoXConfig", BASE | {"intermediate_size": 48, "max_position_embeddings": 256}),
    "gpt_neox_serial": ("GPTNeoXConfig", BASE | {"intermediate_size": 48, "use_parallel_residual": False}),
    "opt": ("OPTConfig", OPT | {"word_embed_proj_dim": 32}),
    "opt_350m": ("OPTConfig", OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 4, "n_head": 4}),
    "falcon": ("FalconConfig", BASE),
    "falcon_rw": ("FalconConfig", BASE | {"alibi": True, "parallel_attn": False, "multi_query": False, "bias": True}),
    "falcon_40b": ("FalconConfig", BASE | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "mixtral": ("MixtralConfig", LLAMA | {"num_local_experts": 4}),
}
"""Config class of transformers and what makes it tiny."""
UNUSUAL: dict[str, tuple[str, dict[str, Any]]] = {
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 4, "n_heads": 4}),
    "xglm": ("XGLMConfig", {"d_model": 32, "num_layers": 4, "attention_heads": 4, "ffn_dim": 48, "init_std": 0.2}),
    "openai_gpt": ("OpenAIGPTConfig", {"n_embd": 32, "n_layer": 4, "n_head": 4}),
    "llama4": ("Llama4TextConfig", LLAMA | {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48}),
    "bert": ("BertConfig", BASE | {"intermediate_size": 48, "is_decoder": True}),
}
"""Position biases, masks that must have a row each, blocks that return a list, and blocks at other places."""
EAGER_ONLY = ("gemma2", "bloom", "mpt", "xglm", "openai_gpt")
CASES = [(name, kind) for name in MODELS for kind in ("eager", "sdpa") if kind == "eager" or name not in EAGER_ONLY]
PROMPT = chat(BOMB)
QUICK = ("llama", "qwen2", "gemma2", "mistral", "gpt2")
"""What most people bring: `make test-quick` runs these alone."""


def case(name: str, *more: str) -> Any:
    """A parameter, slow unless it is one of QUICK."""
    values = (name, *more) if more else name
    return pytest.param(values, id="-".join((name, *more)), marks=() if name in QUICK else pytest.mark.slow)


def build(tokenizer: Any, name: str, attention: str, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """A model with random weights, large enough for visible effects."""
    kind, settings = (MODELS | UNUSUAL)[name]
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": None}
    torch.manual_seed(0)
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **{"initializer_range": 0.2} | special | settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    assert model.config._attn_implementation == attention
    return LoadedModel(model.eval().requires_grad_(False), tokenizer, name, None)


@pytest.fixture(scope="module", params=[case(*c) for c in CASES])
def loaded(request: pytest.FixtureRequest, tokenizer: Any) -> LoadedModel:
    return build(tokenizer, *request.param)


@pytest.fixture(scope="module", params=[case(name) for name in MODELS])
def each(request: pytest.FixtureRequest, tokenizer: Any) -> LoadedModel:
    """With one attention: the slices above compare them."""
    return build(tokenizer, request.param, "eager")


@pytest.fixture(scope="module", params=[case(*c) for c in CASES if c[0] in QUICK or c[1] == "eager"])
def fewer(request: pytest.FixtureRequest, tokenizer: Any) -> LoadedModel:
    """Both attentions of QUICK alone: what differs between them is torch's, not an architecture's."""
    return build(tokenizer, *request.param)


def find(loaded: LoadedModel, **settings: Any) -> VectorBank:
    """At a fixed R: that "auto" chooses one is no matter of the architecture."""
    fixed = {"n_vectors": 4, "steps": 6, "radius": 0.5, "radius_unit": "residual"}
    return discover(loaded, DiscoveryConfig(**fixed | settings), [PROMPT])


def check_vectors(bank: VectorBank) -> None:
    """float32, finite, and of norm R."""
    assert bank.vectors.dtype == bank.objective.dtype == torch.float32
    assert torch.allclose(bank.vectors.norm(dim=1), torch.full((4,), bank.radius), rtol=1e-5)
    assert bool(torch.isfinite(bank.objective).all())


def check_slices(loaded: LoadedModel) -> None:
    """The slice between any two layers is what the whole model computes, and the vectors matter."""
    ids, vectors = encode(loaded.tokenizer, PROMPT, 256), draw_vectors(loaded)
    for source, target in PAIRS:
        expected = steered_target(loaded, ids, source, target, vectors)
        piece = make_slice(loaded, ids, source, target)
        error = (piece.run(vectors) - expected).norm(dim=-1) / expected.norm(dim=-1)
        assert float(error.max()) < 1e-4
        effect = (expected - piece.target).norm(dim=-1) / expected.norm(dim=-1)
        assert float(effect.min()) > 1e-2
        last = piece.change(vectors, 2) - (expected - piece.target)[:, -2:].float()
        assert float(last.norm()) < 1e-3 * float((expected - piece.target)[:, -2:].norm())
        assert piece.row_bytes > 0
    assert hook_count(loaded) == 0


def test_a_slice_equals_the_hooked_model(loaded: LoadedModel) -> None:
    check_slices(loaded)


@pytest.mark.parametrize("name", [case(name) for name in UNUSUAL])
def test_a_slice_equals_the_hooked_model_of_unusual_architectures(tokenizer: Any, name: str) -> None:
    check_slices(build(tokenizer, name, "eager"))


@pytest.mark.parametrize(("optimizer", "lr"), [("fast", 0.02), ("published", 0.2)])
def test_training_raises_the_objective_above_the_control(each: LoadedModel, optimizer: str, lr: float) -> None:
    bank = find(each, optimizer=optimizer, lr=lr)
    check_vectors(bank)
    assert float(bank.objective.mean()) > float(random_control(each, bank).objective.mean())


@pytest.mark.parametrize(
    ("method", "variant"), [("power", "exponential"), ("dct", "exponential"), ("dct", "quadratic"), ("dct", "linear")]
)
def test_the_other_methods_find_more_than_the_control(each: LoadedModel, method: str, variant: str) -> None:
    if variant != "exponential" and each.name not in QUICK:
        return  # the variants differ in the step, not in what they ask of an architecture
    bank = find(each, method=method, variant=variant)
    check_vectors(bank)
    assert bank.score is not None and bool(torch.isfinite(bank.score).all())
    assert float(bank.objective.mean()) > float(random_control(each, bank).objective.mean())


def relative_error(got: Tensor, expected: Tensor) -> float:
    """The largest over rows."""
    return float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max())


def test_derivatives_are_those_of_finite_differences(fewer: LoadedModel) -> None:
    piece = make_slice(fewer, encode(fewer.tokenizer, PROMPT, 256), 1, 3)
    problem, h = Problem([piece], DiscoveryConfig(n_vectors=5)), 1e-2
    v = torch.nn.functional.normalize(draw_vectors(fewer), dim=1)
    slope = (problem.change(v * h) - problem.change(-v * h)) / (2 * h)
    assert relative_error(problem.push_forward(torch.zeros_like(v), v), slope) < 5e-3
    bend = (problem.push_forward(v * h, v) - problem.push_forward(-v * h, v)) / (2 * h)
    assert relative_error(problem.curvature(v), bend) < 5e-3
    u = torch.nn.functional.normalize(bend, dim=1)
    turn = (problem.pull_back(v * h, u)[1] - problem.pull_back(-v * h, u)[1]) / (2 * h)
    assert relative_error(problem.hessian_product(v, u), turn) < 5e-3


def test_steering_changes_the_answer_and_scale_zero_does_not(fewer: LoadedModel) -> None:
    sampling = Sampling(max_new_tokens=8)
    rows = torch.cat([torch.zeros(1, fewer.d_model), draw_vectors(fewer, 3) * 10])
    plain = complete(fewer, [PROMPT], sampling=sampling)[0]
    unchanged, *steered = complete(fewer, [PROMPT] * 4, rows, 1, sampling)
    assert complete(fewer, [PROMPT], rows[:1], 1, sampling)[0] == unchanged == plain
    assert set(steered) != {plain}


def test_steering_under_a_cache_equals_steering_without(loaded: LoadedModel) -> None:
    ids = encode(loaded.tokenizer, PROMPT, 256)[None].expand(3, -1)
    width, vectors = ids.shape[1] - 3, draw_vectors(loaded, 3)
    for positions in ("all", "prompt", "generated"):
        logits: list[Tensor] = []
        with torch.no_grad(), steer(loaded, 1, vectors, positions, width):
            cache = None
            for part in (ids[:, :width], *ids[:, width:].split(1, dim=1)):
                out = loaded.model(input_ids=part, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                logits.append(out.logits)
            whole = loaded.model(input_ids=ids, use_cache=False).logits
        assert float((torch.cat(logits, dim=1) - whole).norm() / whole.norm()) < 1e-4, positions


@pytest.mark.parametrize("name", [case(name) for name in MODELS])
def test_vectors_are_float32_on_a_bfloat16_model(tokenizer: Any, name: str) -> None:
    model = build(tokenizer, name, "eager" if name in EAGER_ONLY else "sdpa", torch.bfloat16)
    assert model.model.dtype == torch.bfloat16
    ways: list[dict[str, Any]] = [{"optimizer": "fast"}]
    if name in ("llama", "gpt2"):
        ways += [{"optimizer": "published", "lr": 0.2}, {"method": "power"}]
    for settings in ways:
        bank = find(model, **settings)
        check_vectors(bank)
        assert float(bank.objective.mean()) > float(random_control(model, bank).objective.mean())


@pytest.mark.parametrize("name", ["bloom", "mixtral"])
def test_operations_without_forward_mode_have_the_derivatives_of_those_with_it(tokenizer: Any, name: str) -> None:
    """Bloom's GELU and Mixtral's grouped experts against torch's GELU and the loop over experts."""
    loaded, plain = build(tokenizer, name, "eager"), build(tokenizer, name, "eager")
    if name == "bloom":
        for block in plain.blocks:
            block.mlp.gelu_impl = nn.GELU(approximate="tanh")
    else:
        plain.model.set_experts_implementation("eager")
    ids, vectors = encode(tokenizer, PROMPT, 256), draw_vectors(loaded)
    pieces = [make_slice(model, ids, 1, 3) for model in (loaded, plain)]
    with pytest.raises(RuntimeError, match=r"setup_context|forward AD"):
        torch.func.jvp(pieces[0].run, (vectors,), (vectors,))
    torch.func.jvp(pieces[1].run, (vectors,), (vectors,))
    got, expected = (
        [problem.push_forward(vectors, vectors), *problem.gauss_newton(vectors), problem.curvature(vectors)]
        for problem in (Problem([piece], DiscoveryConfig(n_vectors=5)) for piece in pieces)
    )
    for a, b in zip(got, expected, strict=True):
        assert not a.requires_grad
        assert float((a - b).norm() / b.norm()) < 1e-3


def test_an_unknown_architecture_says_what_was_looked_for_and_the_override(tokenizer: Any) -> None:
    loaded = build(tokenizer, "llama", "eager")
    blocks, body = loaded.blocks, loaded.model.model
    body.stack = body._modules.pop("layers")
    with pytest.raises(ModelError) as error:
        discover(loaded, DiscoveryConfig(n_vectors=2, steps=1), [PROMPT])
    message = str(error.value)
    assert "LlamaForCausalLM has no list of decoder blocks at layers, h, blocks" in message
    assert 'blocks="path.to.layers"' in message and "--blocks" in message and "\n" not in message
    assert "its lists of modules are at model.stack" in message
    assert replace(loaded, block_path="model.stack").blocks is find_blocks(loaded.model, "model.stack") is blocks


@pytest.mark.parametrize("path", ["model.layer", "model", "", "lm_head", "model.layers.0", "model.layers.x"])
def test_a_wrong_path_of_blocks_is_refused(tokenizer: Any, path: str) -> None:
    loaded = build(tokenizer, "llama", "eager")
    with pytest.raises(ModelError, match=f"decoder blocks at '{path}'; its lists of modules are at model.layers"):
        find_blocks(loaded.model, path)


def test_load_model_takes_the_path_of_the_blocks(tokenizer: Any, tmp_path: Path) -> None:
    build(tokenizer, "gpt2", "eager").model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu", blocks="transformer.h")
    assert loaded.block_path == "transformer.h" and loaded.blocks is loaded.model.transformer.h
    check_vectors(find(loaded))
    with pytest.raises(ModelError, match=r"at 'model\.layers'; its lists of modules are at transformer\.h"):
        load_model(str(tmp_path), device="cpu", blocks="model.layers")


def test_blocks_without_one_residual_stream_are_refused(tokenizer: Any) -> None:
    """DeepSeek V4 and its like carry several streams, [rows, T, streams, d_model]."""
    loaded, ids = build(tokenizer, "llama", "eager"), encode(tokenizer, PROMPT, 256)
    loaded.blocks[3].register_forward_hook(lambda _module, _args, out: out[:, :, None].expand(-1, -1, 4, -1))
    with pytest.raises(ModelError, match=r"shape \[1, 21, 4, 32\], not \[1 rows, 21 tokens, d_model 32\]"):
        make_slice(loaded, ids, 0, 3)
    with pytest.raises(ModelError, match="LlamaForCausalLM"), steer(loaded, 3, torch.ones(32)):
        run_until_stop(loaded, ids[None])
