"""Measure completions: all metrics of each one against the unsteered answer, and rates over many."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from torch import Tensor

from melbo.errors import MetricError
from melbo.measure.coherence import CoherenceScale, coherence, typical_nll
from melbo.measure.embeddings import Embedder
from melbo.measure.likelihood import completion_nll
from melbo.measure.text_metrics import is_degenerate, is_refusal, language
from melbo.models.load import LoadedModel
from melbo.prompts import Message


@dataclass(frozen=True)
class Measurement:
    """What one completion is like."""

    text: str
    coherence: float
    """0 to 10, see `melbo.measure.coherence.coherence`; NaN where likelihoods were not asked for."""
    nll: float | None
    """`typical_nll` under the unsteered model, nats a token; None for a text without tokens, or as above."""
    refusal: bool
    language: str | None
    """ISO 639-1, None if the text is too short to tell."""
    change: float
    """Cosine distance (0 to 2) of the sentence embeddings to the unsteered answer of the same prompt."""
    same: bool
    """Whether it equals the unsteered answer exactly."""
    degenerate: bool
    """Empty or a loop."""
    embedding: Tensor = field(repr=False, compare=False)
    """Sentence embedding [d] of the text."""


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
    languages: dict[str, int]
    """Completions by language, most frequent first; "unknown" for None."""


def measure(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    completions: Sequence[str],
    unsteered: Sequence[str],
    embedder: Embedder,
    scale: CoherenceScale | None,
) -> list[Measurement]:
    """Measure completions, each against the unsteered answer to its own prompt.

    Args:
        prompts: one a completion.
        completions: texts; equal ones are embedded and scored once.
        unsteered: the answers without steering, one a completion.
        scale: None: without likelihoods, the slowest part; coherence is then NaN.

    Raises:
        MetricError: their numbers differ. PromptError: a prompt does not fit the model.
    """
    if not len(prompts) == len(completions) == len(unsteered):
        raise MetricError(
            f"{len(prompts)} prompts, {len(completions)} completions and {len(unsteered)} unsteered answers were "
            "given; give the same number of each."
        )
    if not completions:
        return []
    users = [str(p[-1]["content"]) for p in prompts]
    own, base, asked = embedder([*completions, *unsteered, *users]).split(len(completions))
    nearness = (own.double() * asked.double()).sum(dim=1).tolist()
    changes = (1 - (own.double() * base.double()).sum(dim=1)).clamp_min(0).tolist()
    losses = completion_nll(loaded, prompts, completions) if scale is not None else []
    described = {text: _describe(text) for text in dict.fromkeys([*completions, *unsteered])}
    found = []
    for i, text in enumerate(completions):
        nll, same = typical_nll(losses[i]) if losses else math.nan, text == unsteered[i]
        spoken = {described[text]["language"], described[unsteered[i]]["language"]} - {None}
        near = nearness[i] if len(spoken) < 2 and not same else None
        found.append(
            Measurement(
                text=text,
                coherence=math.nan if scale is None else coherence(nll, scale, text, near),
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
    return {"refusal": is_refusal(text), "language": language(text), "degenerate": is_degenerate(text)}


def rates(measurements: Sequence[Measurement]) -> Rates:
    """Means and shares over measurements.

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
        languages=most_frequent_first(languages),
    )


def most_frequent_first(counts: Counter[str]) -> dict[str, int]:
    """The counts, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
