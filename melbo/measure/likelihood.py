"""How likely texts are under the unsteered model."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from melbo.errors import ConfigError, PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode

Ids = tuple[int, ...]
IGNORED = -100
"""Stands for no token."""
_LOGITS = 2**27
"""Most logits (rows x tokens x vocabulary) of one forward pass: 512 MB in float32."""


def completion_nll(
    loaded: LoadedModel, prompts: Sequence[Sequence[Message]], completions: Sequence[str], batch_size: int = 32
) -> list[Tensor]:
    """Negative log-likelihood of each completion's tokens after its own prompt, under the unsteered model.

    The end-of-text token is not scored. Completions are cut at the end of the model's context. Equal pairs are
    scored once.

    Args:
        prompts: conversations, one for each completion.
        batch_size: most rows of one forward pass; long texts or a large vocabulary make it smaller.

    Returns:
        for each completion a float32 tensor [its tokens] in nats, on the CPU; empty for an empty completion.

    Raises:
        PromptError: a prompt does not fit, or the numbers of prompts and completions differ.
        ConfigError: batch_size is below 1.
    """
    if len(prompts) != len(completions):
        raise PromptError(f"{len(prompts)} prompts were given for {len(completions)} completions; give one for each.")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1.")
    pairs = [_ids(loaded, p, c) for p, c in zip(prompts, completions, strict=True)]
    after: dict[Ids, set[Ids]] = {}
    for head, tail in pairs:
        if tail:
            after.setdefault(head, set()).add(tail)
    found: dict[tuple[Ids, Ids], Tensor] = {}
    vocabulary = int(loaded.model.config.get_text_config().vocab_size)
    for head, tails in after.items():
        waiting = sorted(tails, key=lambda ids: (len(ids), ids))
        while waiting:
            size = max(1, min(batch_size, _LOGITS // ((1 + len(waiting[-1])) * vocabulary)))
            part, waiting = waiting[-size:], waiting[:-size]
            found |= {(head, tail): x for tail, x in zip(part, _losses(loaded, head, part), strict=True)}
    return [found.get(pair, torch.zeros(0)).clone() for pair in pairs]


def _ids(loaded: LoadedModel, prompt: Sequence[Message], completion: str) -> tuple[Ids, Ids]:
    """Tokens of the prompt and of the completion, as far as the context holds them."""
    head = encode(loaded.tokenizer, prompt, loaded.context - 1).tolist()
    tail = loaded.tokenizer(completion, add_special_tokens=False)["input_ids"] if completion else []
    return tuple(head), tuple(tail[: loaded.context - len(head)])


def _losses(loaded: LoadedModel, head: Ids, tails: Sequence[Ids]) -> list[Tensor]:
    """Losses of one batch of completions of one prompt, whose own tokens are read once.

    Padding on the right: a causal model needs neither mask nor positions for it.
    """
    width, pad = max(map(len, tails)), loaded.tokenizer.pad_token_id
    batch = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in tails])
    targets = torch.tensor([[*ids, *[IGNORED] * (width - len(ids))] for ids in tails], device=loaded.device)
    with torch.inference_mode():
        prompt = torch.tensor([head], device=loaded.device)
        first = loaded.model(input_ids=prompt, use_cache=width > 1, logits_to_keep=1)
        losses = [_loss(first.logits[:, -1:].expand(len(tails), -1, -1), targets[:, :1])]
        if width > 1:
            cache = first.past_key_values
            cache.batch_repeat_interleave(len(tails))
            rest = loaded.model(input_ids=batch[:, :-1].to(loaded.device), past_key_values=cache, use_cache=True).logits
            losses.append(_loss(rest, targets[:, 1:]))
    return [row[: len(ids)] for row, ids in zip(torch.cat(losses, dim=1).cpu(), tails, strict=True)]


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """[rows, T] of logits [rows, T, V]; the vocabulary stays the last dimension, which is several times faster."""
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view(targets.shape)
