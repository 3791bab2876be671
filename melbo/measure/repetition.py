"""Whether a vector changes different answers in the same way, without labels.

A vector that means something adds one trait to the answers to many prompts; a random one changes each answer in some
other way. The change of an answer: its sentence embedding minus that of the unsteered answer to the same prompt, and
beside it the same for its forms (`melbo.measure.traits.forms`, 0 or 1 each) times FORM_WEIGHT; from this the mean over
all rows for that prompt is taken off, so that what every vector does counts for none, and the rest is normalised.

FORM_WEIGHT and ALIKE were chosen on SmolLM2-135M: 64 vectors of one bank (R 0.126, both signs) and 16 random rows at
each of once and twice the norm, 32 tokens, 40 random choices of 8 of 16 prompts. "read": 14 vectors at scale 1 whose
trait was found by reading beforehand; "mixed": rows put together from other vectors' changes, one a prompt. Quantiles
of the mean cosine, and how many of the read are above the 99% quantile of the random rows at twice the norm:

| weight | mixed 99% | random 99% | twice the norm 99% | scale -1 99% | read above |
|---|---|---|---|---|---|
| 0 | 0.05 | 0.05 | 0.10 | 0.11 | 81% |
| 0.3 | 0.05 | 0.05 | 0.10 | 0.11 | 88% |
| 0.5 | 0.06 | 0.07 | 0.11 | 0.13 | 91% |
| 0.7 | 0.07 | 0.08 | 0.13 | 0.14 | 89% |

Above 0.15 (weight 0.5, 8 prompts) are 82% of the read, 0.5% of scale -1, none of the random, 0.3% at twice the norm;
with 4 prompts 4% at twice the norm, so ask at least 8. One model, one bank, and the bank was read by those who chose.
A centred change says "less than the others" too: rows that hardly change anything share a little of that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.errors import MetricError
from melbo.measure.coherence import COHERENT
from melbo.measure.traits.forms import FORMS

FORM_WEIGHT = 0.5
"""What one form counts beside a sentence embedding of norm 1."""
ALIKE = 0.15
"""Mean cosine from which a row's changes are one trait."""
_NOTHING = 1e-5
"""Norm of a change that is none."""


@dataclass(frozen=True)
class Forms:
    """Which forms the answers have, as 0 and 1."""

    steered: Tensor
    """[rows, prompts, forms]."""
    unsteered: Tensor
    """[prompts, forms]."""

    @classmethod
    def of(cls, steered: Sequence[Sequence[str]], unsteered: Sequence[str]) -> "Forms":
        """Of texts: a list of one a prompt for each row, and the unsteered ones."""
        if not steered or any(len(row) != len(unsteered) for row in steered):
            raise MetricError(f"each row needs {len(unsteered)} answers, one for each unsteered one.")
        return cls(torch.stack([form_features(row) for row in steered]), form_features(unsteered))


@dataclass(frozen=True)
class Repetition:
    """How far each row's change repeats. A row is a vector at one sign or scale."""

    cosine: Tensor
    """Float64 [rows], -1/(prompts - 1) to 1: mean cosine of a row's changes over all pairs of prompts."""
    found: Tensor
    """Float64 [rows], 0 to 1: share of ordered pairs of prompts at which, given the row's change on one, its change on
    the other is the nearest of all rows' changes; equally near ones share the point."""
    coherent: Tensor
    """Bool [rows]: coherent on enough prompts."""
    repeated: Tensor
    """Bool [rows]: coherent, and its mean cosine above the threshold."""

    @property
    def retrieval(self) -> float:
        """Mean of `found`, 0 to 1."""
        return float(self.found.mean())

    @property
    def chance(self) -> float:
        """What retrieval is where nothing repeats: 1 / rows."""
        return 1 / len(self.found)


def form_features(texts: Sequence[str]) -> Tensor:
    """Float32 [texts, forms], 0 or 1; an empty text has none."""
    shows = [[float(bool(text.strip()) and form.shows(text)) for form in FORMS] for text in texts]
    return torch.tensor(shows).reshape(len(texts), len(FORMS))


def changes(steered: Tensor, unsteered: Tensor, forms: Forms | None = None, form_weight: float = FORM_WEIGHT) -> Tensor:
    """Each row's change on each prompt, centred and normalised.

    Args:
        steered: sentence embeddings [rows, prompts, d] of the steered answers; at least two rows and two prompts.
        unsteered: those of the unsteered answers, [prompts, d].
        forms: of the same answers; None: embeddings only.
        form_weight: what one form counts.

    Returns:
        float64 [rows, prompts, d + forms], of norm 1; 0 where a row does what all rows do.

    Raises:
        MetricError: the shapes do not fit, or a value is not finite.
    """
    blocks = [_difference(steered, unsteered, "embeddings")]
    if blocks[0].shape[0] < 2 or blocks[0].shape[1] < 2:
        raise MetricError(f"embeddings have shape {list(steered.shape)}; give at least two rows and two prompts.")
    if forms is not None:
        blocks.append(form_weight * _difference(forms.steered, forms.unsteered, "forms"))
        if blocks[1].shape[:2] != blocks[0].shape[:2]:
            raise MetricError(
                f"forms have shape {list(forms.steered.shape)}, embeddings {list(steered.shape)}; give both for the "
                "same rows and prompts."
            )
    whole = torch.cat(blocks, dim=-1)
    centred = whole - whole.mean(dim=0)
    norms = centred.norm(dim=-1, keepdim=True)
    return torch.where(norms > _NOTHING, centred / norms.clamp_min(_NOTHING), 0.0)


def _difference(steered: Tensor, unsteered: Tensor, what: str) -> Tensor:
    if steered.ndim != 3 or steered.shape[1:] != unsteered.shape:
        raise MetricError(
            f"{what} have shapes {list(steered.shape)} and, unsteered, {list(unsteered.shape)}; give "
            "[rows, prompts, d] and [prompts, d]."
        )
    difference = steered.double() - unsteered.double()
    if not bool(torch.isfinite(difference).all()):
        raise MetricError(f"{what} hold values that are not finite; leave those rows out.")
    return difference


def repetition(
    steered: Tensor,
    unsteered: Tensor,
    coherence: Tensor,
    forms: Forms | None = None,
    *,
    coherent_on: int | None = None,
    alike: float = ALIKE,
    form_weight: float = FORM_WEIGHT,
) -> Repetition:
    """How far each row's change repeats over prompts that its vector was not found on.

    Args:
        steered: sentence embeddings [rows, prompts, d] of the steered answers; all rows of one bank, or all of a random
            control: the mean over them is taken off.
        unsteered: [prompts, d].
        coherence: [rows, prompts], 0 to 10.
        forms: of the same answers; None: embeddings only.
        coherent_on: on how many prompts a row must be coherent; None: all.
        alike: mean cosine above which a coherent row repeats.

    Raises:
        MetricError: the shapes do not fit, a value is not finite, or coherent_on is out of range.
    """
    change = changes(steered, unsteered, forms, form_weight)
    rows, prompts = change.shape[:2]
    if coherence.shape != (rows, prompts):
        raise MetricError(f"coherence has shape {list(coherence.shape)}; give {[rows, prompts]}.")
    needed = prompts if coherent_on is None else coherent_on
    if not 0 <= needed <= prompts:
        raise MetricError(f"coherent_on is {coherent_on}; there are {prompts} prompts.")
    cosine = _mean_cosine(change)
    coherent = (coherence >= COHERENT).sum(dim=1) >= needed
    return Repetition(cosine, _found(change), coherent, coherent & (cosine > alike))


def _mean_cosine(change: Tensor) -> Tensor:
    """[rows]: of all pairs of prompts, from the norm of the sum."""
    prompts = change.shape[1]
    pairs = change.sum(dim=1).square().sum(dim=-1) - change.square().sum(dim=(1, 2))
    return pairs / (prompts * (prompts - 1))


def _found(change: Tensor) -> Tensor:
    """[rows]: see `Repetition.found`."""
    rows, prompts = change.shape[:2]
    points = torch.zeros(rows, dtype=torch.float64)
    for one in range(prompts):
        for other in range(prompts):
            if one != other:
                near = change[:, one] @ change[:, other].T
                nearest = near >= near.max(dim=1, keepdim=True).values - 1e-9
                points += nearest.diagonal() / nearest.sum(dim=1)
    return points / (prompts * (prompts - 1))
