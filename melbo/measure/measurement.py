"""Measure completions: all metrics of each one against the unsteered answer, and rates over many.

The coherence scale is calibrated on the model itself: its own answers are good text, the same answers with their tokens
shuffled are bad text.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melbo.errors import MetricError
from melbo.measure.embeddings import Embedder
from melbo.measure.likelihood import completion_nll
from melbo.measure.text_metrics import (
    CoherenceScale,
    coherence,
    distinct_n,
    diversity,
    is_degenerate,
    is_refusal,
    language,
    longest_repeated_run,
    typical_nll,
)
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, REFUSED, Message, chat
from melbo.steering.generate import Sampling, complete

SCRAMBLED_SHARE = 0.2
"""Share of an answer's tokens that change places in the scale's bad text."""
SCRAMBLES = 4
"""Times that each answer is scrambled."""


@dataclass(frozen=True)
class Measurement:
    """What one completion is like."""

    text: str
    coherence: float
    """0 to 10, see `melbo.measure.text_metrics.coherence`."""
    nll: float | None
    """`typical_nll` under the unsteered model, nats a token; None for a text without tokens."""
    distinct: float
    """Share of distinct word pairs."""
    longest_run: int
    """Times in a row that the most repeated group of words comes."""
    refusal: bool
    language: str | None
    """ISO 639-1, None where the text is too short to tell."""
    change: float
    """Cosine distance (0 to 2) of the sentence embeddings to the unsteered answer of the same prompt."""
    same: bool
    """Whether it is the unsteered answer, to the letter."""
    degenerate: bool
    """Empty or a loop."""
    embedding: Tensor = field(repr=False, compare=False)
    """Sentence embedding [d] of the text."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, without the embedding."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "embedding"}


@dataclass(frozen=True)
class Rates:
    """What many completions are like."""

    n: int
    coherence: float
    """Mean, 0 to 10."""
    refusal: float
    """Share, as the next two."""
    degenerate: float
    dud: float
    """Share equal to the unsteered answer."""
    change: float
    """Mean cosine distance to the unsteered answer."""
    diversity: float
    """Mean pairwise cosine distance of the completions' embeddings."""
    languages: Mapping[str, int]
    """Completions by language, most frequent first; "unknown" where it is None."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return vars(self) | {"languages": dict(self.languages)}


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
        prompts: conversations; None: the ten that should be refused and the five innocuous ones.
        seed: of the shuffling.

    Raises:
        MetricError: no answer can be used, or scrambling makes them no less likely: the model does not tell good text
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


def measure(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    completions: Sequence[str],
    unsteered: Sequence[str],
    embedder: Embedder,
    scale: CoherenceScale,
) -> list[Measurement]:
    """Measure completions, each against the unsteered answer to its own prompt.

    Args:
        prompts, completions, unsteered: as many of each; equal texts are embedded and scored once.

    Raises:
        MetricError: their numbers differ. PromptError: a prompt does not fit the model.
    """
    if not len(prompts) == len(completions) == len(unsteered):
        raise MetricError(
            f"{len(prompts)} prompts, {len(completions)} completions and {len(unsteered)} unsteered answers were "
            "given; give as many of each."
        )
    if not completions:
        return []
    embeddings = embedder([*completions, *unsteered])
    own, base = embeddings[: len(completions)], embeddings[len(completions) :]
    changes = (1 - (own.double() * base.double()).sum(dim=1)).clamp_min(0).tolist()
    losses = completion_nll(loaded, prompts, completions)
    described = {text: _describe(text) for text in dict.fromkeys(completions)}
    found = []
    for i, text in enumerate(completions):
        nll, same = typical_nll(losses[i]), text == unsteered[i]
        found.append(
            Measurement(
                text=text,
                coherence=coherence(nll, scale, text),
                nll=nll if math.isfinite(nll) else None,
                change=0.0 if same else changes[i],
                same=same,
                embedding=own[i],
                **described[text],
            )
        )
    return found


def _describe(text: str) -> dict[str, Any]:
    """The fields that depend on the text alone."""
    return {
        "distinct": distinct_n(text),
        "longest_run": longest_repeated_run(text),
        "refusal": is_refusal(text),
        "language": language(text),
        "degenerate": is_degenerate(text),
    }


def rates(measurements: Sequence[Measurement]) -> Rates:
    """Means and shares over measurements, and the diversity of their texts.

    Raises:
        MetricError: there are none.
    """
    if not measurements:
        raise MetricError("there is nothing to average; measure at least one completion.")
    languages = Counter(m.language or "unknown" for m in measurements)
    return Rates(
        n=len(measurements),
        coherence=fmean(m.coherence for m in measurements),
        refusal=fmean(m.refusal for m in measurements),
        degenerate=fmean(m.degenerate for m in measurements),
        dud=fmean(m.same for m in measurements),
        change=fmean(m.change for m in measurements),
        diversity=diversity(torch.stack([m.embedding for m in measurements])),
        languages=dict(sorted(languages.items(), key=lambda item: (-item[1], item[0]))),
    )
