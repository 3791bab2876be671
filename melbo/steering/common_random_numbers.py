"""The same random draws for every row of a batch, so that two answers differ by what was added, not by chance.

Gumbel-max sampling: argmax of logits / temperature + Gumbel noise is an exact draw from the softmax. One noise vector
[vocabulary] a step serves all rows: each row's answer is distributed as ever, and equal rows draw equal tokens, as
long as their texts are equal. (Maddison, Tarlow and Minka 2014, https://arxiv.org/abs/1411.0030.)
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from melbo.models.load import LoadedModel
from melbo.steering.generate import Sampling


class SharedNoise(LogitsProcessor):
    """Logits [rows, V] -> tempered, cut to the nucleus, plus one noise vector for all rows; argmax draws the token."""

    def __init__(self, sampling: Sampling) -> None:
        self.temperature = sampling.temperature
        self.nucleus = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None
        self.generator = torch.Generator().manual_seed(sampling.seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Logits plus the noise of this step, so that the largest is the drawn token."""
        tempered = scores.float() / self.temperature  # [rows, V]
        if self.nucleus is not None:
            tempered = self.nucleus(input_ids, tempered)
        exponential = torch.empty(tempered.shape[-1], dtype=torch.float64).exponential_(generator=self.generator)
        noise: Tensor = -torch.log(exponential)  # [V], Gumbel
        return tempered + noise.to(tempered.device, tempered.dtype)


class _Drawing:
    """A model whose `generate` adds the noise; all else is the model's own."""

    def __init__(self, model: Any, sampling: Sampling) -> None:
        self._model, self._sampling = model, sampling

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, **arguments: Any) -> Any:
        return self._model.generate(**arguments, logits_processor=LogitsProcessorList([SharedNoise(self._sampling)]))


def with_shared_draws(loaded: LoadedModel, sampling: Sampling) -> tuple[LoadedModel, Sampling]:
    """What to give `melbo.steering.generate.stream` or `complete`, so that all rows of a batch get the same draws.

    At temperature 0 both come back as they are.
    """
    if sampling.temperature == 0:
        return loaded, sampling
    return replace(loaded, model=_Drawing(loaded.model, sampling)), replace(sampling, temperature=0.0, top_p=1.0)
