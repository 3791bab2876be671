"""Likelihoods: batched equals single, and both equal a plain computation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from melbo.errors import ConfigError, PromptError
from melbo.measure.likelihood import completion_nll
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat, encode
from support.tiny import MakeTiny

PROMPTS = [chat(BOMB), chat("Hi"), chat("Tell me a joke about a very long and winding road, please."), chat("Hi")]
TEXTS = ["No.", "A kite needs wind and a long tail.", "Đi nào", "Sure! " * 9]


def plain_nll(loaded: LoadedModel, prompt: list[dict[str, str]], text: str) -> torch.Tensor:
    """One token at a time, each from a forward pass of its own."""
    ids = encode(loaded.tokenizer, prompt, loaded.context).tolist()
    losses = []
    for token in loaded.tokenizer(text, add_special_tokens=False)["input_ids"]:
        with torch.inference_mode():
            logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, -1]
        losses.append(-logits.double().log_softmax(dim=-1)[token])
        ids.append(token)
    return torch.stack(losses).float()


def test_nll_equals_one_token_at_a_time(tiny: LoadedModel) -> None:
    for prompt, text, found in zip(PROMPTS, TEXTS, completion_nll(tiny, PROMPTS, TEXTS), strict=True):
        torch.testing.assert_close(found, plain_nll(tiny, prompt, text), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_nll_does_not_depend_on_the_batch(tiny: LoadedModel, batch_size: int) -> None:
    together = completion_nll(tiny, PROMPTS, TEXTS, batch_size)
    for prompt, text, found in zip(PROMPTS, TEXTS, together, strict=True):
        torch.testing.assert_close(found, completion_nll(tiny, [prompt], [text])[0], atol=1e-5, rtol=0)


def test_nll_in_half_precision_is_close(make_tiny: MakeTiny) -> None:
    loaded = make_tiny()
    half = replace(loaded, model=make_tiny().model.bfloat16())
    exact = completion_nll(loaded, PROMPTS, TEXTS)
    together = completion_nll(half, PROMPTS, TEXTS)
    for i, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        alone = completion_nll(half, [prompt], [text])[0]
        torch.testing.assert_close(together[i], alone, atol=0.05, rtol=0.02)
        assert float((together[i] - exact[i]).abs().mean()) < 0.1 * float(exact[i].mean())


def test_equal_pairs_are_scored_once_and_do_not_share_memory(tiny: LoadedModel) -> None:
    calls: list[int] = []
    handle = tiny.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: calls.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        first, second = completion_nll(tiny, [PROMPTS[0]] * 2, ["same", "same"])
    finally:
        handle.remove()
    assert calls == [1, 1], "the prompt, and then the completion"
    first.zero_()
    assert float(second.sum()) > 0


def test_empty_and_too_long_completions(make_tiny: MakeTiny) -> None:
    loaded = make_tiny(context=64)
    head = len(encode(loaded.tokenizer, PROMPTS[0], 64))
    empty, cut = completion_nll(loaded, [PROMPTS[0]] * 2, ["", "bomb " * 200])
    assert empty.shape == (0,)
    assert cut.shape == (64 - head,) and bool(torch.isfinite(cut).all())
    assert completion_nll(loaded, [], []) == []


def test_wrong_arguments_of_nll_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(PromptError, match="4 prompts were given for 1"):
        completion_nll(tiny, PROMPTS, ["a"])
    with pytest.raises(ConfigError, match="batch_size is 0"):
        completion_nll(tiny, PROMPTS, TEXTS, 0)
