"""Token probabilities with and without steering, and shared random draws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError
from melbo.inspect.lens.token_change import token_changes
from melbo.measure.likelihood import completion_nll
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.steering.common_random_numbers import SharedNoise, with_shared_draws
from melbo.steering.generate import Sampling, complete


@pytest.mark.parametrize("text", ["Sure! Here is how.", "Trời ơi, 你好 🎈 ok", "  spaced\n\nout ", "x"])
def test_the_tokens_are_the_text_and_the_unsteered_side_the_likelihood(
    tiny: LoadedModel, tiny_bank: VectorBank, text: str
) -> None:
    found = token_changes(tiny, chat(BOMB), text, tiny_bank.vector(0, 1.0), tiny_bank.layer)
    assert "".join(t.text for t in found) == text
    losses = completion_nll(tiny, [chat(BOMB)], [text])[0]
    assert torch.allclose(torch.tensor([t.unsteered for t in found]), (-losses).exp(), atol=1e-5)
    assert all(t.change == pytest.approx(math.log(t.steered / t.unsteered), abs=1e-4) for t in found)
    assert any(abs(t.change) > 0.01 for t in found)


def test_greedy_steered_tokens_are_the_likeliest_under_steering(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    vector = tiny_bank.vector(1, -1.5)
    answer = complete(tiny, [chat(BOMB)], vector[None], tiny_bank.layer, Sampling(max_new_tokens=8))[0]
    found = token_changes(tiny, chat(BOMB), answer, vector, tiny_bank.layer)
    assert sum(t.change for t in found) > 0


def test_nothing_changes_without_a_vector_or_outside_its_positions(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    none = token_changes(tiny, chat(BOMB), "Sure thing", torch.zeros(64), tiny_bank.layer)
    assert [t.change for t in none] == [0.0] * len(none) and none
    later = token_changes(tiny, chat(BOMB), "Sure thing", tiny_bank.vector(0), tiny_bank.layer, "generated")
    assert later[0].change == 0 and any(t.change != 0 for t in later[1:])
    assert token_changes(tiny, chat(BOMB), "", tiny_bank.vector(0), tiny_bank.layer) == []
    told = token_changes(tiny, chat(BOMB, "Sing."), "Sure", torch.zeros(64), 1, unsteered_prompt=chat(BOMB))
    assert any(t.change != 0 for t in told)
    with pytest.raises(ConfigError):
        token_changes(tiny, chat(BOMB), "Sure", tiny_bank.vector(0), 99)


def test_rows_with_the_same_logits_draw_the_same_token_and_at_the_right_rate() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(2, -1)
    noise = SharedNoise(Sampling(temperature=1.0, seed=1))
    drawn = torch.stack([noise(None, logits).argmax(dim=-1) for _ in range(4000)])
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert torch.allclose(drawn[:, 0].bincount(minlength=3) / 4000, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)
    cut = SharedNoise(Sampling(temperature=1.0, top_p=0.6, seed=1))
    assert {int(cut(None, logits).argmax(dim=-1)[0]) for _ in range(200)} == {0, 1}
    cold = SharedNoise(Sampling(temperature=0.05, seed=1))
    assert {int(cold(None, logits).argmax(dim=-1)[0]) for _ in range(200)} == {0}


def test_equal_rows_of_a_batch_give_equal_texts(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    sampling = Sampling(16, temperature=1.0, seed=3)
    same, greedy = with_shared_draws(tiny, Sampling(16))
    assert same is tiny and greedy == Sampling(16)
    loaded, settings = with_shared_draws(tiny, sampling)
    vector = tiny_bank.vector(0, 0.5)
    rows = torch.stack([torch.zeros(64), vector, torch.zeros(64), vector])
    first = complete(loaded, [chat(BOMB)] * 4, rows, tiny_bank.layer, settings)
    assert first[0] == first[2] != first[1] == first[3]
    assert first[:2] == complete(loaded, [chat(BOMB)] * 2, rows[:2], tiny_bank.layer, settings)
    other = with_shared_draws(tiny, replace(sampling, seed=4))
    assert complete(other[0], [chat(BOMB)], sampling=other[1]) != first[:1]
