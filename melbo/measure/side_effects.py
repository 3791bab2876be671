"""What a vector does to prompts that it should not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from melbo.errors import MetricError
from melbo.measure.likelihood import first_token_kl
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, Message, chat
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, complete

NEUTRAL_PROMPTS = INNOCUOUS
"""Questions that a vector trained on something else should not affect: the replication's five harmless ones."""


@dataclass(frozen=True)
class OffTarget:
    """What one vector does to prompts that it should not change."""

    changed: float
    """Share of the answers that differ from the unsteered ones."""
    kl: float
    """Mean `first_token_kl`, nats a token."""
    n_prompts: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return dict(vars(self))


def off_target(
    loaded: LoadedModel,
    vectors: Tensor,
    layer: int,
    prompts: Sequence[Sequence[Message]] | None = None,
    sampling: Sampling | None = None,
    batch_size: int = 64,
    progress: OnProgress | None = None,
) -> list[OffTarget]:
    """How much each vector changes the answers to prompts that it should not change.

    Args:
        vectors: [n, d_model], already scaled, added at all positions to the output of block `layer`.
        prompts: conversations; None: `NEUTRAL_PROMPTS`.
        progress: called with (vectors done, vectors) after each batch; an exception from it cancels.

    Returns:
        one for each vector, in their order.

    Raises:
        MetricError: no prompt was given. ConfigError: a wrong layer or shape.
    """
    prompts = [chat(p) for p in NEUTRAL_PROMPTS] if prompts is None else list(prompts)
    if not prompts:
        raise MetricError("off-target change needs at least one prompt.")
    sampling = sampling or Sampling(max_new_tokens=32)
    unsteered = complete(loaded, prompts, sampling=sampling, batch_size=batch_size)
    at_once = max(1, batch_size // len(prompts))
    found: list[OffTarget] = []
    for start in range(0, len(vectors), at_once):
        part = vectors[start : start + at_once]
        rows = part.repeat_interleave(len(prompts), dim=0)  # [vectors * prompts, d_model], vector-major
        asked = [*prompts] * len(part)
        texts = complete(loaded, asked, rows, layer, sampling, batch_size=batch_size)
        kl = first_token_kl(loaded, asked, rows, layer, batch_size=batch_size).view(len(part), -1).mean(dim=1)
        for i, value in enumerate(kl.tolist()):
            own = texts[i * len(prompts) : (i + 1) * len(prompts)]
            changed = fmean(a != b for a, b in zip(own, unsteered, strict=True))
            found.append(OffTarget(changed, value, len(prompts)))
        notify(progress, len(found), len(vectors))
    return found
