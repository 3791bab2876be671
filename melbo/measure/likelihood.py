"""How likely texts are under the unsteered model, and how far a vector moves its next-token distribution."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from melbo.errors import ConfigError, PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import Positions, check_layer, steer

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
        first = loaded.model(input_ids=torch.tensor([head], device=loaded.device), use_cache=width > 1)
        logits = first.logits[:, -1:].float().expand(len(tails), -1, -1)  # [B, 1, V]
        if width > 1:
            cache = first.past_key_values
            cache.batch_repeat_interleave(len(tails))
            rest = loaded.model(input_ids=batch[:, :-1].to(loaded.device), past_key_values=cache, use_cache=True).logits
            logits = torch.cat([logits, rest.float()], dim=1)  # [B, T, V]
        losses = cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED).cpu()
    return [row[: len(ids)] for row, ids in zip(losses, tails, strict=True)]


def first_token_kl(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    vectors: Tensor,
    layer: int,
    n_tokens: int = 8,
    positions: Positions = "all",
    batch_size: int = 64,
) -> Tensor:
    """KL(steered || unsteered) of the next-token distribution, mean over the answer's first tokens.

    Both models read the same text, the unsteered model's greedy answer (teacher forcing), so that the tokens can be
    compared one by one. An answer that ends earlier counts up to and including its end.

    Args:
        prompts: conversations; row i is steered by vectors[i].
        vectors: [rows, d_model], already scaled, added to the output of block `layer`.
        n_tokens: how many tokens of the answer are compared, at most.
        positions: where the vectors are added.

    Returns:
        float32 [rows] in nats, not negative, on the CPU; 0 for a zero vector.

    Raises:
        PromptError, ConfigError: a bad prompt, layer, shape, position or number.
    """
    if vectors.ndim != 2 or len(vectors) != len(prompts):
        raise ConfigError(f"vectors have shape {tuple(vectors.shape)}; {len(prompts)} prompts need one row each.")
    if n_tokens < 1 or batch_size < 1:
        raise ConfigError(f"n_tokens is {n_tokens} and batch_size {batch_size}; both must be at least 1.")
    check_layer(loaded, layer)
    rows_of: dict[tuple[int, ...], list[int]] = {}
    messages: dict[tuple[int, ...], Sequence[Message]] = {}
    for i, prompt in enumerate(prompts):
        key = tuple(encode(loaded.tokenizer, prompt, loaded.context - n_tokens).tolist())
        rows_of.setdefault(key, []).append(i)
        messages.setdefault(key, prompt)
    divergence = torch.zeros(len(prompts))
    if not prompts:
        return divergence
    answers = complete(loaded, list(messages.values()), sampling=Sampling(max_new_tokens=n_tokens))
    for (key, rows), answer in zip(rows_of.items(), answers, strict=True):
        tail = loaded.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []
        ids = torch.tensor([*key, *tail[: n_tokens - 1]])
        base = _answer_log_probs(loaded, ids, len(key), vectors.new_zeros(1, loaded.d_model), layer, positions)
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            steered = _answer_log_probs(loaded, ids, len(key), vectors[part], layer, positions)
            pointwise = (steered.exp() * (steered - base)).sum(dim=-1)  # [rows, n]
            divergence[part] = pointwise.mean(dim=-1).clamp_min(0).cpu()
    return divergence


def _answer_log_probs(
    loaded: LoadedModel, ids: Tensor, prompt_tokens: int, vectors: Tensor, layer: int, positions: Positions
) -> Tensor:
    """Log-probabilities [rows, answer tokens + 1, V] of what follows the prompt and each token after it."""
    batch = ids.expand(len(vectors), -1).to(loaded.device)
    with torch.inference_mode(), steer(loaded, layer, vectors, positions, prompt_tokens):
        logits = loaded.model(input_ids=batch, attention_mask=torch.ones_like(batch), use_cache=False).logits
    return log_softmax(logits[:, prompt_tokens - 1 :].float(), dim=-1)
