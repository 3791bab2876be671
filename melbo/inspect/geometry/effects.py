"""What steering vectors change at later layers: their effect at one layer where the answer begins, and what the blocks
make of a vector on the way: the change's norm and its cosine with the vector, layer by layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.bank.result_file import Count, Extensible
from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.steering.hooks import capture, check_layer
from melbo.steering.slices import Slice, make_slice

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


@dataclass(frozen=True)
class LayerChange(Extensible):
    """Mean over vectors, prompts and tokens at the output of one block."""

    layer: Count
    norm: float
    """Norm of the change per norm of the vector: below 1, the blocks have undone a part of it."""
    cosine: float
    """Cosine of the change with the vector."""
    random_norm: float
    random_cosine: float


def layer_changes(
    loaded: LoadedModel,
    vectors: Tensor,
    random: Tensor,
    prompts: Sequence[Sequence[Message]],
    source_layer: int,
    tokens: int,
) -> tuple[LayerChange, ...]:
    """The change at every layer after the source layer, of vectors [n, d_model] and of random ones."""
    layers = range(source_layer + 1, loaded.n_layers)
    measured = [change_rows(loaded, v, prompts, source_layer, tokens).mean(dim=0) for v in (vectors, random)]
    return tuple(
        LayerChange(layer, float(own[0]), float(own[1]), float(control[0]), float(control[1]))
        for layer, own, control in zip(layers, *measured, strict=True)
    )


def change_rows(
    loaded: LoadedModel, vectors: Tensor, prompts: Sequence[Sequence[Message]], source_layer: int, tokens: int
) -> Tensor:
    """[n, layers, 2], float64: the change of each vector [n, d_model] at every layer after the source layer.

    Its norm per norm of the vector, and its cosine with the vector; mean over prompts and their last `tokens`.
    """
    layers = list(range(source_layer + 1, loaded.n_layers))
    total = torch.zeros(len(vectors), len(layers), 2, dtype=torch.float64)
    for prompt in prompts:
        piece = make_slice(loaded, encode(loaded.tokenizer, prompt, loaded.context), source_layer, loaded.n_layers - 1)
        plain = _states(piece, loaded, vectors.new_zeros(1, vectors.shape[1]), layers, tokens)
        for begin in range(0, len(vectors), ROWS):
            part = vectors[begin : begin + ROWS].to(loaded.device)
            changed = _states(piece, loaded, part, layers, tokens)
            for place, (with_it, without) in enumerate(zip(changed, plain, strict=True)):
                change = with_it - without  # [n, tokens, d_model]
                norm = change.norm(dim=-1) / part.norm(dim=-1)[:, None]
                cosine = torch.nn.functional.cosine_similarity(change, part[:, None].to(change), dim=-1)
                both = torch.stack([norm.mean(dim=1), cosine.mean(dim=1)], dim=-1)  # [n, 2]
                total[begin : begin + ROWS, place] += both.double().cpu()
    return total / len(prompts)


def _states(piece: Slice, loaded: LoadedModel, vectors: Tensor, layers: list[int], tokens: int) -> list[Tensor]:
    """Activations [n, tokens, d_model] at each layer."""
    with torch.no_grad(), capture(loaded, layers, stop=False) as found:
        piece.run(vectors.to(loaded.device))
    return [found[layer][:, -tokens:].float() for layer in layers]
