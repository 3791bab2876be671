"""What finding and using an answer costs: tokens and floating-point operations.

FLOPs are estimated from parameter counts: 2 per parameter and token forwards (Kaplan et al. 2020,
https://arxiv.org/abs/2001.08361, without the attention scores), and 2 more backwards, since weights are frozen and only
the gradient of the activations is computed. The input embedding is a look-up and counts only if it is also the output
head. Every expert of a mixture counts, so such models look more expensive than they are.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from operator import add

from melbo.bank.vector_bank import VectorBank
from melbo.models.load import LoadedModel
from melbo.prompts import encode


@dataclass(frozen=True)
class Compute:
    """Tokens and operations."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    training_tokens: int = 0
    """Tokens that were run forwards and backwards, for each vector of a bank separately."""
    flops: float = 0.0

    def __add__(self, other: Compute) -> Compute:
        return Compute(*map(add, astuple(self), astuple(other)))


def parameters(loaded: LoadedModel) -> int:
    """Parameters that each token passes through."""
    model = loaded.model
    total = sum(p.numel() for p in model.parameters())
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    tied = head is not None and head.weight is embedding
    return total if tied else total - embedding.numel()


def generation_compute(loaded: LoadedModel, prompt_tokens: int, generated_tokens: int) -> Compute:
    """Cost of generating answers with a KV cache: each token runs forwards once."""
    flops = 2.0 * parameters(loaded) * (prompt_tokens + generated_tokens)
    return Compute(prompt_tokens, generated_tokens, 0, flops)


def training_compute(loaded: LoadedModel, tokens: int) -> Compute:
    """Cost of training adapters on frozen weights: forwards and backwards through the whole model."""
    return Compute(training_tokens=tokens, flops=4.0 * parameters(loaded) * tokens)


def discovery_compute(loaded: LoadedModel, bank: VectorBank) -> Compute:
    """Cost of finding a bank: config.steps passes forwards and backwards through the slice for every vector.

    Calibrating R and second derivatives are not counted. Random vectors only cost their evaluation, which is
    not counted for any bank.
    """
    config = bank.config
    assert config.source_layer is not None and config.target_layer is not None
    blocks = list(loaded.blocks)[config.source_layer + 1 : config.target_layer + 1]
    size = sum(p.numel() for block in blocks for p in block.parameters())
    width = sum(len(encode(loaded.tokenizer, p, loaded.context)) for p in bank.prompts)
    tokens = width * len(bank) * (config.steps or 0)
    return Compute(training_tokens=tokens, flops=4.0 * size * tokens)
