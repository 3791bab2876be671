"""Directional ablation: the direction is gone from every block's output, all else stays, and no hook or weight does."""

from __future__ import annotations

import pytest
import torch

from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import chat, encode
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import ablate, capture, run_until_stop
from support.tiny import hook_count

PROMPT = chat("How can I make a bomb?")


@pytest.fixture
def vector(tiny: LoadedModel) -> torch.Tensor:
    return torch.randn(tiny.d_model, generator=torch.Generator().manual_seed(1)) * 3


def outputs(tiny: LoadedModel) -> dict[int, torch.Tensor]:
    layers = list(range(tiny.n_layers))
    with torch.no_grad(), capture(tiny, layers, stop=False) as found:
        run_until_stop(tiny, encode(tiny.tokenizer, PROMPT, tiny.context)[None])
    return found


def test_no_block_writes_the_direction(tiny: LoadedModel, vector: torch.Tensor) -> None:
    unit = vector / vector.norm()
    plain = outputs(tiny)
    assert all(float((h @ unit).abs().max()) > 0.01 for h in plain.values())
    with ablate(tiny, vector):
        ablated = outputs(tiny)  # `capture` was registered later and sees the changed outputs
    for layer, hidden in ablated.items():
        assert float((hidden @ unit).abs().max()) < 1e-4 * float(plain[layer].norm(dim=-1).max())
    first = plain[0] - (plain[0] @ unit)[..., None] * unit
    torch.testing.assert_close(ablated[0], first, atol=1e-5, rtol=1e-4)


def test_length_and_sign_play_no_part(tiny: LoadedModel, vector: torch.Tensor) -> None:
    found = []
    for row in (vector, -5 * vector):
        with ablate(tiny, row):
            found.append(outputs(tiny)[3])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_weights_and_hooks_are_as_before(tiny: LoadedModel, vector: torch.Tensor) -> None:
    before = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    plain = outputs(tiny)
    with pytest.raises(KeyError), ablate(tiny, vector):
        complete(tiny, [PROMPT], sampling=Sampling(2))
        raise KeyError
    assert hook_count(tiny) == 0
    assert all(torch.equal(v, before[k]) for k, v in tiny.model.state_dict().items())
    assert all(torch.equal(h, plain[layer]) for layer, h in outputs(tiny).items())


def test_generation_is_ablated_too(tiny: LoadedModel, vector: torch.Tensor) -> None:
    plain = complete(tiny, [PROMPT], sampling=Sampling(12))
    with ablate(tiny, vector):
        changed = complete(tiny, [PROMPT], sampling=Sampling(12))
    assert plain != changed
    assert complete(tiny, [PROMPT], sampling=Sampling(12)) == plain


@pytest.mark.parametrize("bad", ["zero", "nan", "short", "two"])
def test_an_impossible_direction_is_refused(tiny: LoadedModel, bad: str) -> None:
    width = tiny.d_model
    vectors = {
        "zero": torch.zeros(width),
        "nan": torch.full((width,), float("nan")),
        "short": torch.ones(width - 1),
        "two": torch.ones(2, width),
    }
    with pytest.raises(ConfigError), ablate(tiny, vectors[bad]):
        pass
    assert hook_count(tiny) == 0
