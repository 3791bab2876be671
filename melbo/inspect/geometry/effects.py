"""The effect of steering vectors on a prompt: the change of a later layer's activations where the answer begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.steering.hooks import check_layer
from melbo.steering.slices import make_slice

ROWS = 64
"""Vectors of one forward pass."""


def effects(
    loaded: LoadedModel,
    vectors: Tensor,
    prompts: Sequence[Sequence[Message]],
    source_layer: int,
    layer: int,
    tokens: int = 1,
) -> Tensor:
    """Mean change [n, d_model], float32, at the output of block `layer` that each vector makes.

    The mean goes over the prompts and over each one's last `tokens` positions. An effect is not linear in the vector:
    that of -v is not minus that of v.

    Args:
        vectors: [n, d_model], added at every position of the output of block `source_layer`.

    Raises:
        ConfigError: the layer is not after the source layer, or not in the model.
    """
    check_layer(loaded, layer)
    if layer <= source_layer:
        raise ConfigError(f"layer {layer} is not after the source layer {source_layer}; an effect shows later.")
    found = torch.zeros(len(vectors), loaded.d_model)
    with torch.no_grad():
        for prompt in prompts:
            piece = make_slice(loaded, encode(loaded.tokenizer, prompt, loaded.context), source_layer, layer)
            for begin in range(0, len(vectors), ROWS):
                part = vectors[begin : begin + ROWS].to(loaded.device)
                found[begin : begin + ROWS] += piece.change(part, tokens).mean(dim=1).float().cpu()
    return found / len(prompts)
