"""Patchscope: the model's own words for a vector that stands in the place of a word's activation.

Ghandeharioun et al., "Patchscopes", 2024, https://arxiv.org/abs/2401.06102. A prompt asks for the meaning of a
placeholder word; at one layer, the activation of that word is replaced by the vector, scaled to the length of what it
replaces; the model answers. Small models answer with nonsense: compare with the unpatched and the random answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, chat, encode
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import check_layer, edit_outputs
from melbo.steering.random_vectors import random_vectors

ASK = "What is the meaning of the word X? Explain in one sentence."
PLACEHOLDER = "X"
OTHERS = ("Y", "Q", "Z", "J", "K")
"""Words put in its place to see which tokens are its own: one that gives as many tokens in all."""


@dataclass(frozen=True)
class Descriptions:
    """Answers to the question, per vector and for the controls."""

    question: str
    layer: int
    scale: float
    answers: tuple[str, ...]
    unpatched: str
    random: str


def placeholder_positions(loaded: LoadedModel, question: str) -> tuple[list[Message], list[int]]:
    """The prompt, and the positions of the word "X" in its tokens.

    Raises:
        PromptError: the question does not hold "X" as one word, or another word there changes the number of tokens.
    """
    if not re.search(rf"\b{PLACEHOLDER}\b", question):
        raise PromptError(f"the question {question!r} does not hold the word {PLACEHOLDER}, the vector's place.")
    prompt = chat(question)
    own = encode(loaded.tokenizer, prompt, loaded.context - 1)
    for word in OTHERS:
        other = encode(loaded.tokenizer, chat(re.sub(rf"\b{PLACEHOLDER}\b", word, question)), loaded.context - 1)
        if len(own) == len(other) and bool((own != other).any()):
            return prompt, (own != other).nonzero().flatten().tolist()
    raise PromptError(f"the tokens of {PLACEHOLDER} in {question!r} cannot be told apart; put spaces around it.")


def patched(
    loaded: LoadedModel, vectors: Tensor, layer: int, question: str, scale: float, sampling: Sampling
) -> list[str]:
    """Answers with the placeholder's activation at the output of block `layer` replaced by each of vectors [n, d]."""
    prompt, positions = placeholder_positions(loaded, question)
    width = len(encode(loaded.tokenizer, prompt, loaded.context - 1))
    unit = torch.nn.functional.normalize(vectors, dim=-1)

    def replace_word(block: int, hidden: Tensor) -> Tensor:
        if block != layer or hidden.shape[1] != width:  # a later token, under the cache
            return hidden
        hidden = hidden.clone()
        there = hidden[:, positions]  # [rows, P, d_model]
        hidden[:, positions] = scale * there.norm(dim=-1, keepdim=True) * unit[:, None].to(there)
        return hidden

    with edit_outputs(loaded.blocks, replace_word):
        return complete(loaded, [prompt] * len(vectors), sampling=sampling, batch_size=len(vectors))


def describe(
    loaded: LoadedModel,
    bank: VectorBank,
    indices: Sequence[int],
    layer: int | None = None,
    question: str = ASK,
    scale: float = 1.0,
    sampling: Sampling | None = None,
) -> Descriptions:
    """The model's own description of some of a bank's vectors.

    Args:
        layer: where the vector is put; None: the bank's source layer.
        question: holds the word "X" in the vector's place.
        scale: length of the vector, in units of the activation that it replaces; negative for the other sign.

    Raises:
        BankError, ConfigError, PromptError: the bank, the layer, the scale or the question does not fit.
    """
    bank.check_fits(loaded)
    layer = bank.layer if layer is None else layer
    check_layer(loaded, layer)
    if scale == 0 or not abs(scale) < 1e6:
        raise ConfigError(f"scale is {scale!r}; it must be a finite number other than 0.")
    sampling = sampling or Sampling(max_new_tokens=48)
    random = random_vectors(1, loaded.d_model, bank.radius, False, 0)
    rows = torch.cat([bank.select(indices).vectors, random])
    *answers, control = patched(loaded, rows, layer, question, scale, sampling)
    unpatched = complete(loaded, [placeholder_positions(loaded, question)[0]], sampling=sampling)[0]
    return Descriptions(question, layer, scale, tuple(answers), unpatched, control)
