"""How much steering changed the probability of each token of an answer.

1. The steered answer is tokenized behind its prompt (teacher forcing).
2. One pass with the vector and one without give each token's log-probability.
3. Their difference, in nats, is the change: positive where steering made the token likelier.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.inspect.lens.token_texts import TokenTexts
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.steering.hooks import Positions, steer


@dataclass(frozen=True)
class TokenChange:
    """One token of an answer."""

    text: str
    unsteered: float
    """Its probability without steering, 0 to 1."""
    steered: float
    change: float
    """log(steered / unsteered), nats."""


def token_changes(
    loaded: LoadedModel,
    prompt: Sequence[Message],
    answer: str,
    vector: Tensor,
    layer: int,
    positions: Positions = "all",
    unsteered_prompt: Sequence[Message] | None = None,
) -> list[TokenChange]:
    """The tokens of `answer`, with their probabilities with and without steering; their texts together are the answer.

    Args:
        prompt: conversation that the answer belongs to.
        vector: [d_model], scale multiplied in, added at the output of block `layer`; zeros where the prompt alone
            steers.
        unsteered_prompt: what the unsteered model reads instead; None: the same.

    Raises:
        PromptError, ConfigError: a bad prompt, layer or vector.
    """
    ids = loaded.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []
    if not ids:
        return []
    steered = _log_probs(loaded, prompt, ids, vector, layer, positions)
    plain = _log_probs(loaded, unsteered_prompt or prompt, ids, torch.zeros_like(vector), layer, positions)
    texts = TokenTexts(loaded.tokenizer).pieces(ids)
    return [
        TokenChange(text, math.exp(before), math.exp(after), after - before)
        for text, before, after in zip(texts, plain.tolist(), steered.tolist(), strict=False)
    ]


def _log_probs(
    loaded: LoadedModel, prompt: Sequence[Message], answer: Sequence[int], vector: Tensor, layer: int, where: Positions
) -> Tensor:
    """Log-probability of each answer token [T], float32 on the CPU; cut where the context ends."""
    head = encode(loaded.tokenizer, prompt, loaded.context - 1)
    ids = torch.cat([head, torch.tensor(answer, dtype=torch.long)])[: loaded.context].to(loaded.device)
    with torch.inference_mode(), steer(loaded, layer, vector, where, len(head)):
        logits = loaded.model(input_ids=ids[None], use_cache=False).logits[0]  # [T, V]
    chosen = torch.log_softmax(logits[len(head) - 1 : -1].float(), dim=-1)
    return chosen.gather(1, ids[len(head) :, None].to(chosen.device))[:, 0].cpu()
