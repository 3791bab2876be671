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
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    """Arguments of each block in the slice, without the hidden states."""

    def run(self, vectors: Tensor) -> Tensor:
        """Target activations [n, T, d_model] with each vector of `vectors` [n, d_model] added at every position.

        Differentiable in `vectors`. Equal to a forward pass of the whole model under `melbo.steering.steer`.
        """
        hidden = self.source + vectors.to(self.source.dtype)[:, None, :]  # [n, T, d_model]
        for layer, (args, kwargs) in enumerate(self.calls, start=self.source_layer + 1):
            if kwargs.get("alibi") is not None:  # Bloom, Falcon: [heads, 1, T] for one row, [n * heads, 1, T] for n
                kwargs = {**kwargs, "alibi": kwargs["alibi"].repeat(len(hidden), 1, 1)}
            output = self.loaded.blocks[layer](hidden, *args, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden

    def change(self, vectors: Tensor, tokens: int) -> Tensor:
        """Change of the target activations at the last `tokens` positions, [n, tokens, d_model], at least float32."""
        change = self.run(vectors)[:, -tokens:] - self.target[:, -tokens:]
        return change.to(torch.promote_types(change.dtype, torch.float32))


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
        args, kwargs = inputs[layer]  # the hidden states come first, or by name
        calls.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))
    return Slice(loaded, source_layer, target_layer, found[source_layer], found[target_layer], tuple(calls))


def mean_residual_norm(slices: list[Slice]) -> float:
    """Mean L2 norm of the residual stream at the source layer over all prompt tokens but each prompt's first.

    The first token is an attention sink in most models, with a norm many times the others'.
    """
    norms = [s.source[0].float().norm(dim=-1)[min(1, s.source.shape[1] - 1) :] for s in slices]
    return float(torch.cat(norms).mean())
