"""How active a steering vector is at each token of one's own text, beside a random vector of the same norm.

1. The text runs through the model as it is, without steering, up to the layer that is read.
2. The value of a token is the dot product of its activation, less the mean, with the unit direction: the vector itself
   at the source layer, or the effect of scale * vector after the last block.
3. Mean and spread are those of ordinary prompts (melbo.prompts), so that values are in standard deviations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, PromptError
from melbo.inspect.geometry.effects import effects
from melbo.inspect.lens.token_texts import TokenTexts
from melbo.inspect.max_activating.corpus_reader import Corpus, Document
from melbo.inspect.max_activating.passages import Passage, activations, batches, read_passages
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, REFUSED, chat, encode
from melbo.steering.random_vectors import random_vectors

Along = Literal["effect", "vector"]
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TokenActivation:
    """One token of the text."""

    text: str
    value: float
    """In standard deviations over the reference prompts; 0 at the first token, an attention sink."""
    random: float
    """The same for a random vector of the same norm."""


@dataclass(frozen=True)
class TextActivations:
    """A text's tokens; their texts together are what the model read."""

    along: Along
    layer: int
    """Block whose output was read."""
    tokens: tuple[TokenActivation, ...]
    reference: int
    """Positions that mean and spread are taken from."""
    cut: bool
    """Whether the text was longer than the model's context."""


def text_activations(
    loaded: LoadedModel,
    bank: VectorBank,
    index: int,
    text: str,
    along: Along = "effect",
    scale: float = 1.0,
    as_chat: bool = True,
    seed: int = 0,
) -> TextActivations:
    """The activation of scale * vector at each token of `text`, and that of a random vector.

    Args:
        along: "vector": the vector itself at its own layer; "effect": what it changes after the last block, on the
            bank's prompts.
        scale: of the vector; for "vector", only its sign counts.
        as_chat: read the text as a user's message, with the template's tokens around it, up to where the answer would
            begin; else as it stands.
        seed: of the random vector.

    Raises:
        BankError, ConfigError: the bank is not this model's, or lacks the vector; `along` is another word.
        PromptError: the text is empty, or a chat longer than the model's context.
    """
    if along not in get_args(Along):
        raise ConfigError(f"along is {along!r}; use one of {', '.join(map(repr, get_args(Along)))}.")
    bank.check_fits(loaded)
    own = bank.vector(index, scale)
    ids, cut = _token_ids(loaded, text, as_chat)
    random = random_vectors(1, loaded.d_model, float(own.norm()), False, seed)
    layer, directions = _directions(loaded, bank, torch.cat([own[None], random]), along)
    ordinary = torch.cat(list(_ordinary(loaded, layer)))  # [P, d_model]
    mean = ordinary.mean(dim=0)
    spread = ((ordinary - mean) @ directions.T).square().mean(dim=0).sqrt().clamp_min(1e-12)  # [2]
    hidden, _ = activations(loaded, [(0, Passage(ids, 1, len(ids)))], layer)
    values = ((hidden[0] - mean) @ directions.T / spread).cpu()  # [T, 2]
    values[0] = 0.0
    texts = TokenTexts(loaded.tokenizer).pieces(ids)
    tokens = tuple(TokenActivation(t, *map(float, row)) for t, row in zip(texts, values.tolist(), strict=True))
    return TextActivations(along, layer, tokens, len(ordinary), cut)


def _token_ids(loaded: LoadedModel, text: str, as_chat: bool) -> tuple[tuple[int, ...], bool]:
    if not text.strip():
        raise PromptError("the text is empty; write at least one word.")
    if as_chat:
        return tuple(encode(loaded.tokenizer, chat(text), loaded.context).tolist()), False
    ids = tuple(loaded.tokenizer(text)["input_ids"])
    return ids[: loaded.context], len(ids) > loaded.context


def _directions(loaded: LoadedModel, bank: VectorBank, vectors: Tensor, along: Along) -> tuple[int, Tensor]:
    """The layer that is read, and unit directions [n, d_model] there."""
    layer = bank.layer if along == "vector" else loaded.n_layers - 1
    made = vectors if along == "vector" else effects(loaded, vectors, bank.prompts, bank.layer, layer)
    return layer, torch.nn.functional.normalize(made, dim=-1).to(loaded.device)


def _ordinary(loaded: LoadedModel, layer: int) -> Iterator[Tensor]:
    """Activations [p, d_model] at all positions but the first of ordinary prompts."""
    documents = [Document(messages=tuple(chat(prompt))) for prompt in (*REFUSED, *INNOCUOUS)]
    corpus = Corpus("ordinary prompts", lambda: iter(documents))
    rows = read_passages(loaded, corpus, "all", loaded.context, 1)
    for group in batches(rows, BATCH_TOKENS):
        hidden, counted = activations(loaded, group, layer)
        yield hidden[counted]
