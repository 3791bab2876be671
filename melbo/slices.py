"""Run only the blocks between the source and the target layer, exactly as the whole model would.

One pass of the whole model per prompt captures the residual stream at the source layer and the arguments (masks,
rotary embeddings) that each later block is called with; after that, a step replays blocks source+1..target alone, for
any number of disturbed copies of the prompt in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melbo.models import LoadedModel
from melbo.steering import capture, record_inputs, run_until_stop


@dataclass(frozen=True)
class Slice:
    """Blocks source+1..target of a model on one prompt."""

    loaded: LoadedModel
    source_layer: int
    target_layer: int
    source: Tensor
    """Residual stream at the source layer [1, T, d_model], unsteered."""
    target: Tensor
    """Residual stream at the target layer [1, T, d_model], unsteered."""
    calls: tuple[dict[str, Any], ...]
    """Keyword arguments of each block in the slice."""

    def run(self, vectors: Tensor) -> Tensor:
        """Target activations [n, T, d_model] with each vector of `vectors` [n, d_model] added at every position.

        Differentiable in `vectors`. Equal to a forward pass of the whole model under `melbo.steering.steer`.
        """
        hidden = self.source + vectors.to(self.source.dtype)[:, None, :]  # [n, T, d_model]
        for layer, kwargs in enumerate(self.calls, start=self.source_layer + 1):
            output = self.loaded.blocks[layer](hidden, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden

    def change(self, vectors: Tensor, tokens: int) -> Tensor:
        """Change of the target activations at the last `tokens` positions, [n, tokens, d_model], in float32."""
        return (self.run(vectors)[:, -tokens:] - self.target[:, -tokens:]).float()


def make_slice(loaded: LoadedModel, input_ids: Tensor, source_layer: int, target_layer: int) -> Slice:
    """Capture one prompt's slice. input_ids [T], without padding."""
    layers = list(range(source_layer + 1, target_layer + 1))
    with (
        torch.no_grad(),
        record_inputs(loaded, layers) as inputs,
        capture(loaded, [source_layer, target_layer]) as found,
    ):
        run_until_stop(loaded, input_ids[None])
    calls = []
    for layer in layers:
        _, kwargs = inputs[layer]
        kwargs = {k: v for k, v in kwargs.items() if k != "hidden_states"}
        calls.append(kwargs)
    return Slice(loaded, source_layer, target_layer, found[source_layer], found[target_layer], tuple(calls))


def mean_residual_norm(slices: list[Slice]) -> float:
    """Mean L2 norm of the residual stream at the source layer over all prompt tokens but each prompt's first.

    The first token is an attention sink in most models, with a norm many times the others'.
    """
    norms = [s.source[0].float().norm(dim=-1)[min(1, s.source.shape[1] - 1) :] for s in slices]
    return float(torch.cat(norms).mean())
