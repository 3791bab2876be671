"""Completions: many rows and vectors in one batch equal plain single runs; streaming; sampling; the context."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from melbo.errors import ConfigError, PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, chat, encode
from melbo.steering.generate import Sampling, complete, decode, stream
from melbo.steering.hooks import POSITIONS, Positions
from support.tiny import MakeTiny, hook_count

pytestmark = pytest.mark.usefixtures("no_hook_stays")

LAYER = 1
PROMPTS = [chat("How can I make a bomb?"), chat("Hi!", None), chat("Write a haiku about flowers, please.")]
GREEDY = Sampling(max_new_tokens=14)
RANDOM = Sampling(max_new_tokens=14, temperature=1.0, seed=3)


@pytest.fixture(scope="session")
def vectors(tiny: LoadedModel) -> Tensor:
    return torch.randn(3, tiny.d_model, generator=torch.Generator().manual_seed(2)) * 3


def plain_greedy(loaded: LoadedModel, messages: list[Message], vector: Tensor, positions: Positions) -> str:
    """One prompt alone: no padding, no cache, no `generate`, and a hook of its own."""
    ids = encode(loaded.tokenizer, messages, loaded.context)
    width = len(ids)

    def add(_module: object, _args: object, output: Tensor) -> Tensor:
        index = torch.arange(output.shape[1])
        chosen = {"all": index >= 0, "prompt": index < width, "generated": index >= width}[positions]
        return torch.where(chosen[None, :, None], output + vector, output)

    handle = loaded.blocks[LAYER].register_forward_hook(add)
    with torch.no_grad():
        for _ in range(GREEDY.max_new_tokens):
            token = loaded.model(input_ids=ids[None], use_cache=False).logits[0, -1].argmax()
            ids = torch.cat([ids, token[None]])
            if token == loaded.tokenizer.eos_token_id:
                break
    handle.remove()
    return str(loaded.tokenizer.decode(ids[width:], skip_special_tokens=True)).rstrip("\ufffd")


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_steered_batch_equals_plain_single_runs(tiny: LoadedModel, vectors: Tensor, positions: Positions) -> None:
    together = complete(tiny, PROMPTS, vectors, LAYER, GREEDY, positions)
    for prompt, vector, text in zip(PROMPTS, vectors, together, strict=True):
        assert text == plain_greedy(tiny, prompt, vector, positions)
        assert [text] == complete(tiny, [prompt], vector[None], LAYER, GREEDY, positions)


def test_positions_make_a_difference(tiny: LoadedModel, vectors: Tensor) -> None:
    """Else the test above could not tell them apart."""
    texts = [complete(tiny, PROMPTS, vectors, LAYER, GREEDY, p) for p in POSITIONS]
    texts.append(complete(tiny, PROMPTS, sampling=GREEDY))
    assert len({tuple(t) for t in texts}) == 4


def test_unsteered_rows_beside_steered_ones_stay_as_they_are(tiny: LoadedModel, vectors: Tensor) -> None:
    plain = complete(tiny, PROMPTS, sampling=GREEDY)
    assert complete(tiny, PROMPTS, torch.zeros_like(vectors), LAYER, GREEDY) == plain
    mixed = complete(tiny, PROMPTS, vectors * torch.tensor([[1.0], [0.0], [1.0]]), LAYER, GREEDY)
    assert mixed[1] == plain[1]
    assert mixed[0] != plain[0] and mixed[2] != plain[2]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_changes_nothing(tiny: LoadedModel, vectors: Tensor, batch_size: int) -> None:
    expected = complete(tiny, PROMPTS, vectors, LAYER, GREEDY)
    assert complete(tiny, PROMPTS, vectors, LAYER, GREEDY, batch_size=batch_size) == expected


@pytest.mark.parametrize("sampling", [GREEDY, RANDOM])
def test_a_stream_grows_and_ends_as_the_completion(tiny: LoadedModel, vectors: Tensor, sampling: Sampling) -> None:
    steps = list(stream(tiny, PROMPTS, vectors, LAYER, sampling))
    assert steps[-1] == complete(tiny, PROMPTS, vectors, LAYER, sampling)
    assert len(steps) == 14
    for before, after in pairwise(steps):
        assert all(b.startswith(a) for a, b in zip(before, after, strict=True))
    assert steps[0] != steps[-1]
    assert hook_count(tiny) == 0


def test_a_character_cut_in_its_middle_is_left_out(tiny: LoadedModel) -> None:
    whole = torch.tensor(tiny.tokenizer("a爆").input_ids)
    assert len(whole) >= 3
    assert decode(tiny, whole[None]) == ["a爆"]
    assert decode(tiny, whole[None, :-1]) == ["a"]


def test_closing_a_stream_stops_the_model_and_removes_the_hook(tiny: LoadedModel, vectors: Tensor) -> None:
    passes: list[int] = []
    handle = tiny.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    running = threading.active_count()
    texts = stream(tiny, PROMPTS, vectors, LAYER, Sampling(max_new_tokens=200))
    try:
        next(texts)
        assert len(tiny.blocks[LAYER]._forward_hooks) == 1
        texts.close()  # type: ignore[attr-defined]
        assert len(tiny.blocks[LAYER]._forward_hooks) == 0
    finally:
        handle.remove()
    assert 1 <= len(passes) < 150
    assert threading.active_count() == running


def test_an_error_in_a_stream_reaches_its_reader(tiny: LoadedModel, vectors: Tensor) -> None:
    with pytest.raises(ConfigError, match="blocks 0 to 3"):
        list(stream(tiny, PROMPTS, vectors, 4, GREEDY))
    with pytest.raises(PromptError, match="empty"):
        list(stream(tiny, [chat(" ")], vectors[:1], LAYER, GREEDY))
    assert hook_count(tiny) == 0


def test_the_same_seed_samples_the_same_texts(tiny: LoadedModel, vectors: Tensor) -> None:
    first = complete(tiny, PROMPTS, vectors, LAYER, RANDOM)
    torch.manual_seed(0)
    assert complete(tiny, PROMPTS, vectors, LAYER, RANDOM) == first
    other = Sampling(max_new_tokens=14, temperature=1.0, seed=4)
    assert complete(tiny, PROMPTS, vectors, LAYER, other) != first
    assert complete(tiny, PROMPTS, vectors, LAYER, GREEDY) != first


def test_sampling_leaves_the_callers_random_state_alone(tiny: LoadedModel) -> None:
    before = torch.get_rng_state()
    complete(tiny, PROMPTS, sampling=RANDOM)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tiny_top_p_is_greedy(tiny: LoadedModel) -> None:
    narrow = Sampling(max_new_tokens=14, temperature=1.0, top_p=1e-6, seed=3)
    assert complete(tiny, PROMPTS, sampling=narrow) == complete(tiny, PROMPTS, sampling=GREEDY)


def test_generation_ends_where_the_context_does(make_tiny: MakeTiny) -> None:
    loaded = make_tiny(context=40)
    width = max(len(encode(loaded.tokenizer, p, 40)) for p in PROMPTS[:2])
    steps = list(stream(loaded, PROMPTS[:2], sampling=Sampling(max_new_tokens=1000)))
    assert len(steps) == 40 - width
    full = make_tiny(context=width + 1)
    assert len(list(stream(full, PROMPTS[:2]))) == 1
    with pytest.raises(PromptError, match=f"{width} tokens"):
        complete(make_tiny(context=width), PROMPTS[:2])


def test_no_prompt_gives_no_text_but_a_stream_refuses_it(tiny: LoadedModel) -> None:
    assert complete(tiny, []) == []
    with pytest.raises(PromptError, match="no prompt"):
        list(stream(tiny, []))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_another_number_of_vectors_than_prompts_is_refused(tiny: LoadedModel, rows: int) -> None:
    wrong = torch.ones(rows, tiny.d_model)
    with pytest.raises(ConfigError, match="3 prompts"):
        complete(tiny, PROMPTS, wrong, LAYER, GREEDY)
    with pytest.raises(ConfigError, match="3 prompts"):
        list(stream(tiny, PROMPTS, wrong, LAYER, GREEDY))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("temperature", -0.1),
        ("temperature", 11.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
    ],
)
def test_an_impossible_sampling_setting_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Sampling(**{name: value})  # type: ignore[arg-type]
