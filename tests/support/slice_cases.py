"""Shared by tests: PAIRS, draw_vectors, steered_target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat, encode
from melbo.steering.hooks import capture, run_until_stop, steer

PAIRS = [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]


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
