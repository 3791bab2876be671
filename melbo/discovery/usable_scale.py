"""How far vectors can be scaled before the answers break.

A handful of vectors answers a handful of prompts at growing or falling scales; the largest scale at which nearly all
answers are still coherent is found by bisection.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import MetricError
from melbo.measure.coherence import COHERENT, CoherenceScale, calibrate_coherence, coherence, typical_nll
from melbo.measure.likelihood import completion_nll
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, Message, chat
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, complete

SHARE = 0.75
"""Share of the answers that must be coherent."""
SMALLEST, LARGEST = 1 / 16, 16.0
STEP = 1.5
"""Factor between the scales that are tried first."""
HALVINGS = 1
VECTORS, PROMPTS, TOKENS = 4, 2, 24


@dataclass(frozen=True)
class UsableScale:
    """The largest scale at which the answers stay coherent, and the shares that it was read from."""

    largest: float
    curve: tuple[tuple[float, float], ...]
    """Pairs (scale, share of coherent answers), by scale."""


def probes(prompts: Sequence[Sequence[Message]]) -> list[list[Message]]:
    """A bank's first prompt and harmless ones, all under the first one's system message: the first PROMPTS are asked,
    all calibrate the coherence.
    """
    own = list(prompts[0])
    system = next((m["content"] for m in own if m["role"] == "system"), None)
    return [own, *(chat(user, system) for user in INNOCUOUS)]


def scale_of(loaded: LoadedModel, asked: Sequence[Sequence[Message]], seed: int) -> CoherenceScale | None:
    """The model's coherence on short answers to these prompts; None: its answers cannot be told from broken ones."""
    try:
        return calibrate_coherence(loaded, asked, seed, Sampling(TOKENS))
    except MetricError:
        return None


def with_usable_scale(
    loaded: LoadedModel, bank: VectorBank, progress: OnProgress | None = None, coherent: CoherenceScale | None = None
) -> VectorBank:
    """The bank with details["usable_scale"]: {"largest": scale, "curve": pairs (scale, share of coherent answers)}.

    Without it where the model's answers cannot be told from broken ones, or the bank has no prompts.

    Args:
        coherent: None: found here.
    """
    if not bank.prompts:
        return bank
    asked = probes(bank.prompts)
    coherent = coherent or scale_of(loaded, asked, bank.config.seed)
    if coherent is None:
        return bank
    found = usable_scale(loaded, bank.vectors, bank.layer, asked[:PROMPTS], coherent, progress=progress)
    seen = {"largest": found.largest, "curve": [list(pair) for pair in found.curve]}
    return replace(bank, details={**bank.details, "usable_scale": seen})


def usable_scale(
    loaded: LoadedModel,
    vectors: Tensor,
    layer: int,
    prompts: Sequence[Sequence[Message]],
    coherence_scale: CoherenceScale,
    most: float = LARGEST,
    share: float = SHARE,
    progress: OnProgress | None = None,
) -> UsableScale:
    """Find the largest scale, from SMALLEST to `most`.

    Args:
        vectors: [n, d_model]; VECTORS of them, in equal distances, are tried with both signs.
        prompts: conversations, that the vectors need not have been found on.
        share: of the answers that must be coherent.
    """
    places = torch.linspace(0, len(vectors) - 1, min(VECTORS, len(vectors))).round().long()
    rows = torch.cat([vectors[places], -vectors[places]])
    asked = [p for p in prompts for _ in rows]
    seen: dict[float, float] = {}

    def holds(scale: float) -> bool:
        if scale not in seen:
            steered = (rows * scale).repeat(len(prompts), 1)
            texts = complete(loaded, asked, steered, layer, Sampling(TOKENS), batch_size=len(asked))
            losses = completion_nll(loaded, asked, texts)
            good = [
                coherence(typical_nll(x), coherence_scale, t) >= COHERENT for x, t in zip(losses, texts, strict=True)
            ]
            seen[scale] = sum(good) / len(good)
            notify(progress, len(seen), 0, "finding the usable scale")
        return seen[scale] >= share

    scale = min(1.0, most)
    if holds(scale):
        low = scale
        while low < most and holds(min(most, low * STEP)):
            low = min(most, low * STEP)
        high = min(most, low * STEP)
    else:
        low, high = scale / STEP, scale
        while low > SMALLEST and not holds(low):
            low, high = low / STEP, low
    for _ in range(HALVINGS if low < high else 0):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return UsableScale(round(low, 3), tuple(sorted((round(s, 4), round(v, 3)) for s, v in seen.items())))
