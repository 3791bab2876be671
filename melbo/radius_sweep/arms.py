"""Answer one prompt with many vectors, measure the answers, and group them by R."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from melbo.measure.behaviour_judge import BehaviourJudge
from melbo.measure.completions import Measurement, measure, most_frequent_first, rates
from melbo.measure.embeddings import Embedder
from melbo.measure.text_metrics import diversity
from melbo.models.load import LoadedModel
from melbo.radius_sweep.result import Arm, Sweep
from melbo.steering.generate import complete

BATCH_SIZE = 64
"""Rows of one forward pass."""


@dataclass(frozen=True)
class Answers:
    """Answers to one prompt, one for each vector."""

    measured: tuple[Measurement, ...]
    modes: tuple[str, ...] | None = None
    """The behaviour that a judge sees in each answer; None without a judge."""
    unsteered_mode: str | None = None
    """The behaviour in the unsteered answer."""

    def part(self, first: int, end: int) -> Answers:
        """The answers of vectors first to end - 1."""
        return Answers(self.measured[first:end], self.modes and self.modes[first:end], self.unsteered_mode)


def answer(
    loaded: LoadedModel,
    sweep: Sweep,
    prompt: int,
    vectors: Tensor,
    embedder: Embedder,
    judge: BehaviourJudge | None = None,
) -> Answers:
    """Answer prompt number `prompt` of a sweep with each vector [n, d_model] at scale 1."""
    messages, unsteered, n = list(sweep.prompts[prompt]), sweep.unsteered[prompt], len(vectors)
    layer = sweep.config.base.source_layer
    assert layer is not None
    texts = complete(loaded, [messages] * n, vectors, layer, sweep.config.sampling, batch_size=BATCH_SIZE)
    measured = measure(loaded, [messages] * n, texts, [unsteered] * n, embedder, sweep.coherence_scale)
    if judge is None:
        return Answers(tuple(measured))
    modes = judge.shown(loaded, messages[-1]["content"], [*texts, unsteered])
    return Answers(tuple(measured), tuple(modes[:-1]), modes[-1])


def make_arm(objective: Tensor, answers: Sequence[Answers], counted: Sequence[str] = ()) -> Arm:
    """One R's numbers.

    Args:
        objective: displacement of each vector [n].
        answers: of these vectors, one entry for each prompt.
        counted: known behaviours to look for (`BehaviourJudge.counted`).
    """
    measured = [m for a in answers for m in a.measured]
    overall = rates(measured)
    spread = sum(diversity(torch.stack([m.embedding for m in a.measured])) for a in answers) / len(answers)
    distinct = sum(distinct_answers(a.measured) for a in answers) / len(answers)
    low, high = np.quantile([m.coherence for m in measured], [0.25, 0.75])
    modes, planted = _counts(answers, counted)
    return Arm(
        objective=float(objective.mean()),
        diversity=spread,
        similarity=1 - spread,
        distinct=distinct,
        coherence=overall.coherence,
        coherence_band=(float(low), float(high)),
        refusal=overall.refusal,
        degenerate=overall.degenerate,
        dud=overall.dud,
        change=overall.change,
        languages=overall.languages,
        completions=tuple(tuple(m.text for m in a.measured) for a in answers),
        modes=modes,
        planted=planted,
    )


def distinct_answers(measured: Sequence[Measurement]) -> float:
    """The effective number of different answers, each weighted by its coherence; 0 if none is coherent.

    The probability-weighted Vendi score: exp of the entropy of the eigenvalues of diag(p)^1/2 K diag(p)^1/2. K holds
    the cosine similarities of the embeddings; p the coherences, scaled to sum to 1. n answers with nothing in common
    give n, equal ones 1. Friedman & Dieng 2023, "The Vendi Score", https://arxiv.org/abs/2210.02410.
    """
    weights = torch.tensor([m.coherence for m in measured], dtype=torch.float64)
    if not bool(weights.sum() > 0):
        return 0.0
    rows = torch.stack([m.embedding for m in measured]).double() * (weights / weights.sum()).sqrt()[:, None]
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0)
    return float(torch.special.entr(values / values.sum()).sum().exp())


def _counts(answers: Sequence[Answers], counted: Sequence[str]) -> tuple[dict[str, int] | None, tuple[str, ...] | None]:
    """Answers by behaviour, most frequent first; and the counted behaviours that no unsteered answer shows."""
    shown = [mode for a in answers for mode in a.modes or ()]
    if not shown:
        return None, None
    counts = Counter(shown)
    return most_frequent_first(counts), tuple(
        m for m in counted if m in counts and all(a.unsteered_mode != m for a in answers)
    )
