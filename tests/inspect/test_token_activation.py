"""Activations of one's own text, and the change of each vector at later layers."""

from __future__ import annotations

import pytest
import torch

from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, PromptError
from melbo.inspect.geometry.effects import change_rows, effects, layer_changes
from melbo.inspect.lens.token_activation import text_activations
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, REFUSED, chat, encode
from melbo.steering.hooks import capture
from melbo.steering.random_vectors import random_vectors

TEXT = "Tell me a joke about bread."


def states(loaded: LoadedModel, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """Residual stream [T, d_model] of one row."""
    with torch.no_grad(), capture(loaded, [layer], stop=False) as found:
        loaded.model(input_ids=ids[None])
    return found[layer][0].float()


@pytest.mark.parametrize("along", ["vector", "effect"])
def test_values_are_centred_products_in_standard_deviations(
    tiny: LoadedModel, tiny_bank: VectorBank, along: str, no_hook_stays: None
) -> None:
    found = text_activations(tiny, tiny_bank, 3, TEXT, along)  # type: ignore[arg-type]
    layer = tiny_bank.layer if along == "vector" else tiny.n_layers - 1
    direction = tiny_bank.vector(3)
    if along == "effect":
        direction = effects(tiny, direction[None], tiny_bank.prompts, tiny_bank.layer, layer)[0]
    direction = direction / direction.norm()
    rows = [encode(tiny.tokenizer, chat(prompt), tiny.context) for prompt in (*REFUSED, *INNOCUOUS)]
    ordinary = torch.cat([states(tiny, ids, layer)[1:] for ids in rows])
    ids = encode(tiny.tokenizer, chat(TEXT), tiny.context)
    spread = ((ordinary - ordinary.mean(dim=0)) @ direction).square().mean().sqrt()
    expected = (states(tiny, ids, layer) - ordinary.mean(dim=0)) @ direction / spread
    values = torch.tensor([token.value for token in found.tokens])
    assert found.layer == layer and found.reference == len(ordinary)
    torch.testing.assert_close(values[1:], expected[1:], atol=2e-3, rtol=1e-3)
    assert values[0] == 0 and "".join(t.text for t in found.tokens) == tiny.tokenizer.decode(ids)


def test_the_random_vector_is_another_one_and_repeats(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    one, again = (text_activations(tiny, tiny_bank, 0, TEXT) for _ in range(2))
    other = text_activations(tiny, tiny_bank, 0, TEXT, seed=1)
    assert one == again and [t.random for t in one.tokens] != [t.random for t in other.tokens]
    assert [t.value for t in one.tokens] == pytest.approx([t.value for t in other.tokens], abs=1e-4)
    assert [t.random for t in one.tokens] != [t.value for t in one.tokens]


def test_minus_the_vector_turns_the_vector_around_but_not_its_effect(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    def values(along: str, scale: float) -> list[float]:
        found = text_activations(tiny, tiny_bank, 2, TEXT, along, scale)  # type: ignore[arg-type]
        return [token.value for token in found.tokens]

    assert values("vector", -1.0) == pytest.approx([-v for v in values("vector", 1.0)], abs=1e-4)
    assert values("effect", -1.0) != pytest.approx([-v for v in values("effect", 1.0)], abs=1e-2)


def test_plain_text_stands_alone_and_is_cut_at_the_context(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    found = text_activations(tiny, tiny_bank, 0, TEXT, as_chat=False)
    assert "".join(t.text for t in found.tokens) == TEXT and not found.cut
    long = text_activations(tiny, tiny_bank, 0, "bread " * tiny.context, as_chat=False)
    assert long.cut and len(long.tokens) == tiny.context


def test_what_cannot_be_read_is_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    with pytest.raises(PromptError, match="empty"):
        text_activations(tiny, tiny_bank, 0, " \n ")
    with pytest.raises(PromptError):
        text_activations(tiny, tiny_bank, 0, "bread " * tiny.context)
    with pytest.raises(ConfigError, match="'effect', 'vector'"):
        text_activations(tiny, tiny_bank, 0, TEXT, "x")  # type: ignore[arg-type]
    with pytest.raises(BankError):
        text_activations(tiny, tiny_bank, 99, TEXT)


def test_each_vectors_change_is_its_own_and_their_mean_is_the_banks(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    vectors, prompts, layer = tiny_bank.vectors, tiny_bank.prompts, tiny_bank.layer
    rows = change_rows(tiny, vectors, prompts, layer, 1)
    assert rows.shape == (len(vectors), tiny.n_layers - 1 - layer, 2)
    torch.testing.assert_close(rows[3:4], change_rows(tiny, vectors[3:4], prompts, layer, 1), atol=1e-4, rtol=1e-4)
    random = random_vectors(4, tiny.d_model, tiny_bank.radius, False, 0)
    whole = layer_changes(tiny, vectors, random, prompts, layer, 1)
    means = torch.tensor([(c.norm, c.cosine) for c in whole], dtype=torch.float64)
    torch.testing.assert_close(means, rows.mean(dim=0))
