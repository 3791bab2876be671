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
    rows = [_ids(loaded, p, c) for p, c in zip(prompts, completions, strict=True)]
    found: dict[tuple[tuple[int, ...], int], Tensor] = {}
    keys = [(tuple(ids.tolist()), start) for ids, start in rows]
    waiting = sorted({key for key in keys if len(key[0]) > key[1]}, key=lambda key: (len(key[0]), key))
    vocabulary = int(loaded.model.config.get_text_config().vocab_size)
    while waiting:
        size = max(1, min(batch_size, _LOGITS // (len(waiting[-1][0]) * vocabulary)))
        part, waiting = waiting[-size:], waiting[:-size]
        found |= dict(zip(part, _losses(loaded, part), strict=True))
    return [found.get(key, torch.zeros(0)).clone() for key in keys]


def _ids(loaded: LoadedModel, prompt: Sequence[Message], completion: str) -> tuple[Tensor, int]:
    """Tokens of prompt and completion, and how many of them belong to the prompt."""
    head = encode(loaded.tokenizer, prompt, loaded.context - 1)
    tail = loaded.tokenizer(completion, add_special_tokens=False)["input_ids"] if completion else []
    ids = torch.cat([head, torch.tensor(tail, dtype=torch.long)])
    return ids[: loaded.context], len(head)


def _losses(loaded: LoadedModel, rows: Sequence[tuple[tuple[int, ...], int]]) -> list[Tensor]:
    """Losses of one batch. Padding on the right: a causal model needs neither mask nor positions for it."""
    width = max(len(ids) for ids, _ in rows)
    batch = torch.tensor([[*ids, *[loaded.tokenizer.pad_token_id] * (width - len(ids))] for ids, _ in rows])
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    with torch.inference_mode():
        logits = loaded.model(
            input_ids=batch.to(loaded.device), attention_mask=mask.to(loaded.device), use_cache=False
        ).logits  # [B, T, V]
        losses = []
        for row, (ids, start) in zip(logits, rows, strict=True):
            targets = torch.tensor(ids[start:], device=row.device)
            losses.append(cross_entropy(row[start - 1 : len(ids) - 1].float(), targets, reduction="none").cpu())
    return losses


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
