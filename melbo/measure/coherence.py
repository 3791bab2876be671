"""How coherent a completion is, from 0 to 10: how likely it is under the unsteered model.

The scale is calibrated on that model: its own answers are good text, the same answers with their tokens shuffled are
bad text. docs/metrics.md gives formula and calibration.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from melbo.errors import MetricError
from melbo.measure.likelihood import completion_nll
from melbo.measure.text_metrics import distinct_n, is_degenerate
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, REFUSED, Message, chat
from melbo.steering.generate import Sampling, complete

SKIPPED_TOKENS = 4
"""First tokens of a completion that `typical_nll` leaves out, if at least as many remain."""
TOKEN_CAP = 6.0
"""Nats to which `typical_nll` clips each token's loss."""
DISTINCT, FEW = (0.4, 0.9), 16
"""Shares of distinct word pairs of a text that repeats itself and of one that does not; words below which nothing is
said: a short text may well say a thing twice."""
NEAR, OFF_TOPIC = (0.05, 0.3), 0.5
"""Similarities of an answer to its prompt where it has lost the topic and where it has not; what the former is worth.
These, as DISTINCT, were chosen on half of 240 answers that were read (docs/metrics.md)."""
COHERENT = 4.0
"""Coherence from which an answer, or the mean of answers, is called coherent."""
SCRAMBLED_SHARE = 0.2
"""Share of an answer's tokens that change places in the bad text."""
SCRAMBLES = 4
"""How often each answer is scrambled."""


@dataclass(frozen=True)
class CoherenceScale:
    """What `typical_nll` of good and of bad text is under one model; between them the score runs from 10 to 0."""

    good_nll: float
    """Nats a token up to which a completion scores 10."""
    bad_nll: float
    """Nats a token from which a completion scores 0."""
    source: str
    """How the two were found."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.good_nll) and math.isfinite(self.bad_nll) and 0 <= self.good_nll < self.bad_nll):
            raise MetricError(
                f"the coherence scale runs from {self.good_nll} to {self.bad_nll} nats; both must be finite, not "
                "negative, and the good one the smaller. Calibrate with prompts that the model answers."
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CoherenceScale:
        """The inverse of `asdict`. Raises MetricError if a field is missing or is not a number."""
        try:
            return cls(float(data["good_nll"]), float(data["bad_nll"]), str(data["source"]))
        except (KeyError, TypeError, ValueError) as error:
            raise MetricError(f"not a coherence scale: {error}; it needs good_nll, bad_nll and source.") from error


def typical_nll(losses: Tensor) -> float:
    """One number for a completion's per-token losses [T] in nats: their mean, without the first 4 and clipped to 6.

    A fluent answer in an unexpected mode is surprising where it begins and at single words; word salad everywhere. Of
    fewer than 8 tokens, all count. No token: infinity.
    """
    if losses.numel() == 0:
        return math.inf
    kept = losses[SKIPPED_TOKENS:] if losses.numel() >= 2 * SKIPPED_TOKENS else losses
    return float(kept.double().clamp(max=TOKEN_CAP).mean())


def coherence(nll: float, scale: CoherenceScale, text: str, near: float | None = None) -> float:
    """Coherence of a completion from 0 to 10.

    0 for an empty or looping text or letters (`is_degenerate`); else linear in `nll` (its `typical_nll` under the
    unsteered model) from 10 at the scale's good_nll to 0 at its bad_nll, times two factors: the share of distinct word
    pairs, in a text of FEW words or more, from 0 at DISTINCT[0] to 1 at DISTINCT[1]; and, where `near` is known, how
    near the answer is to its prompt, from OFF_TOPIC at NEAR[0] to 1 at NEAR[1]. Not a number counts as infinitely
    unlikely.

    Args:
        near: cosine similarity of the sentence embeddings of text and prompt; None: not known, or in another language.
    """
    if not nll <= scale.bad_nll or is_degenerate(text):
        return 0.0
    likely = max(0.0, min(10.0, 10.0 * (scale.bad_nll - nll) / (scale.bad_nll - scale.good_nll)))
    topic = 1.0 if near is None else OFF_TOPIC + (1 - OFF_TOPIC) * _between(near, *NEAR)
    fresh = _between(distinct_n(text, 2), *DISTINCT) if len(text.split()) >= FEW else 1.0
    return likely * fresh * topic


def _between(value: float, low: float, high: float) -> float:
    return max(0.0, min(1.0, (value - low) / (high - low)))


def calibrate_coherence(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]] | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
) -> CoherenceScale:
    """The scale on which this model's own answers are good and the same answers, scrambled, are bad.

    1. The model answers each prompt, unsteered and greedily. Empty answers and loops are left out.
    2. good_nll: the 90th percentile of the answers' `typical_nll`.
    3. bad_nll: the median for the same answers with a random fifth of their tokens shuffled among themselves, four
       times each.

    Args:
        prompts: conversations; None: the ten that a model should refuse and the five harmless ones of melbo/prompts.py.
        seed: of the shuffling.

    Raises:
        MetricError: no answer can be used, or scrambling makes them no less likely: the model cannot tell good text
            from bad.
    """
    prompts = [chat(p) for p in (*REFUSED, *INNOCUOUS)] if prompts is None else list(prompts)
    answers = complete(loaded, prompts, sampling=sampling) if prompts else []
    kept = [(p, a) for p, a in zip(prompts, answers, strict=True) if not is_degenerate(a)]
    if not kept:
        raise MetricError(f"none of the model's {len(answers)} answers is usable; calibrate with other prompts.")
    rng = random.Random(seed)
    good = [typical_nll(x) for x in completion_nll(loaded, [p for p, _ in kept], [a for _, a in kept])]
    scrambled = [(p, _scramble(loaded, a, rng)) for p, a in kept for _ in range(SCRAMBLES)]
    bad = [typical_nll(x) for x in completion_nll(loaded, [p for p, _ in scrambled], [a for _, a in scrambled])]
    good_nll, bad_nll = float(np.quantile(good, 0.9)), float(np.median(bad))
    if not good_nll < bad_nll:
        raise MetricError(
            f"scrambled answers ({bad_nll:.2f} nats a token) are no less likely than the model's own ({good_nll:.2f}); "
            f"this model cannot judge coherence with these {len(prompts)} prompts."
        )
    return CoherenceScale(
        good_nll,
        bad_nll,
        f"{len(kept)} unsteered answers of {loaded.name} (90th percentile) and the same with a fifth of their tokens "
        f"shuffled, {SCRAMBLES} times each (median), seed {seed}",
    )


def _scramble(loaded: LoadedModel, text: str, rng: random.Random) -> str:
    """The text with a random fifth of its tokens, at least two, shuffled among themselves."""
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    chosen = rng.sample(range(len(ids)), min(len(ids), max(2, round(SCRAMBLED_SHARE * len(ids)))))
    moved = list(ids)
    for here, there in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        moved[here] = ids[there]  # a cycle through random places: no token stays
    return str(loaded.tokenizer.decode(moved))
