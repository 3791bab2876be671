"""The slice: exactly what the whole model computes between the source and the target layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BloomConfig, Gemma3TextConfig, GPT2Config, PretrainedConfig

from conftest import hook_count
from melbo.models import LoadedModel
from melbo.prompts import BOMB, chat, encode
from melbo.slices import make_slice, mean_residual_norm
from melbo.steering import capture, run_until_stop, steer

pytestmark = pytest.mark.usefixtures("no_hook_stays")

PAIRS = [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]
SMALL: dict[str, Any] = {"vocab_size": 100, "initializer_range": 0.2}


def steered_target(loaded: LoadedModel, ids: Tensor, source: int, target: int, vectors: Tensor) -> Tensor:
    """Target activations of the whole model under `steer`."""
    with torch.no_grad(), steer(loaded, source, vectors), capture(loaded, [target], stop=False) as found:
        run_until_stop(loaded, ids[None].expand(len(vectors), -1))
    return found[target]


def draw_vectors(loaded: LoadedModel, n: int = 5) -> Tensor:
    return torch.randn(n, loaded.d_model, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture(scope="session")
def ids(tokenizer: object) -> Tensor:
    return encode(tokenizer, chat(BOMB), 256)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_slice_equals_the_hooked_model(tiny: LoadedModel, ids: Tensor, source: int, target: int) -> None:
    vectors = draw_vectors(tiny)
    piece = make_slice(tiny, ids, source, target)
    expected = steered_target(tiny, ids, source, target, vectors)
    assert torch.allclose(piece.run(vectors), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert float((expected - piece.target).abs().max()) > 0.1  # the vectors do something


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_slice_equals_the_hooked_model_in_float64(
    tiny_double: LoadedModel, ids: Tensor, source: int, target: int
) -> None:
    vectors = draw_vectors(tiny_double).double()
    piece = make_slice(tiny_double, ids, source, target)
    expected = steered_target(tiny_double, ids, source, target, vectors)
    assert float((piece.run(vectors) - expected).abs().max()) < 1e-11


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(n_embd=32, n_layer=4, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1, **SMALL),
        Gemma3TextConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, sliding_window=4, **SMALL,
        ),
        BloomConfig(hidden_size=32, n_layer=4, n_head=4, **SMALL),
    ],
    ids=["gpt2", "gemma3", "bloom"],
)  # fmt: skip
def test_a_slice_equals_the_hooked_model_on_other_architectures(config: PretrainedConfig, attention: str) -> None:
    """GPT-2 passes the mask by position, Gemma 3 has a mask per layer, Bloom an ALiBi bias per row."""
    if config.model_type == "bloom" and attention == "sdpa":
        pytest.skip("transformers has no sdpa attention for Bloom")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval().requires_grad_(False)
    loaded = LoadedModel(model, None, "other", None)
    ids, vectors = torch.arange(5, 15), draw_vectors(loaded)
    for source, target in PAIRS:
        expected = steered_target(loaded, ids, source, target, vectors)
        got = make_slice(loaded, ids, source, target).run(vectors)
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_unsteered_slice_is_the_captured_target(tiny: LoadedModel, ids: Tensor) -> None:
    piece = make_slice(tiny, ids, 1, 3)
    assert torch.equal(piece.run(torch.zeros(1, tiny.d_model)), piece.target)
    assert not bool(piece.change(torch.zeros(1, tiny.d_model), 2).any())


def test_change_reads_the_last_tokens_only(tiny: LoadedModel, ids: Tensor) -> None:
    piece, vectors = make_slice(tiny, ids, 1, 3), draw_vectors(tiny)
    change = piece.run(vectors) - piece.target
    assert torch.equal(piece.change(vectors, 2), change[:, -2:])
    assert torch.equal(piece.change(vectors, len(ids)), change)


def test_making_a_slice_leaves_no_hook_and_needs_no_later_block(tiny: LoadedModel, ids: Tensor) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a block after the target ran")

    handle = tiny.blocks[3].register_forward_pre_hook(fail)
    try:
        make_slice(tiny, ids, 0, 2)
    finally:
        handle.remove()
    assert hook_count(tiny) == 0


def test_the_mean_residual_norm_leaves_each_prompts_first_token_out(tiny: LoadedModel, ids: Tensor) -> None:
    pieces = [make_slice(tiny, i, 1, 2) for i in (ids, ids[:5])]
    norms = [float(x.norm()) for piece in pieces for x in piece.source[0, 1:]]
    assert mean_residual_norm(pieces) == pytest.approx(sum(norms) / len(norms), rel=1e-6)


def test_a_prompt_of_one_token_has_a_norm_too(tiny: LoadedModel, ids: Tensor) -> None:
    piece = make_slice(tiny, ids[:1], 1, 2)
    assert mean_residual_norm([piece]) == pytest.approx(float(piece.source.norm()), rel=1e-6)
