"""Refusal study of one vector: jailbreaks, over-refusal by subtraction, ablation, generalisation, transfer of scales.

Rates are shares of greedy answers. "Refused" is `measure.text_metrics.is_refusal`; "answered" is neither refused nor a
loop or empty, so that breaking the model does not count as a jailbreak. Whether an answer is useful is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from melbo.bank.result_file import write_result
from melbo.bank.vector_bank import VectorBank
from melbo.elicitation.score import bootstrap
from melbo.errors import ConfigError, PromptError
from melbo.measure.text_metrics import is_degenerate, is_refusal
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, INNOCUOUS, REFUSED, chat
from melbo.runs.parse import dump
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import ablate

FORMAT = "melbo-refusals-1"
SCALES = (-2.0, -1.5, -1.0, -0.75, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Rate:
    """Shares of one group of prompts."""

    n: int
    answered: float
    refused: float
    low: float
    """95% bootstrap interval of `answered`, as the next."""
    high: float

    @classmethod
    def of(cls, texts: Sequence[str]) -> Rate:
        """The rates of at least one answer."""
        refused = sum(is_refusal(t) for t in texts)
        answered = sum(not is_refusal(t) and not is_degenerate(t) for t in texts)
        return cls(len(texts), answered / len(texts), refused / len(texts), *bootstrap(answered, len(texts)))


@dataclass(frozen=True)
class Condition:
    """Rates of the three groups of prompts under one treatment."""

    train: Rate
    """Harmful prompts to choose the scale on, including the bank's own."""
    heldout: Rate
    """Harmful prompts that no choice was made on."""
    harmless: Rate


@dataclass(frozen=True)
class RefusalStudy:
    """One vector's effect on refusals."""

    model: str
    vector: int
    unsteered: Condition
    ablated: Condition
    """Rates with the vector's direction removed from every block's output."""
    scales: dict[float, Condition]
    random: dict[float, Condition]
    """The same for a random vector of the same norm."""

    @property
    def jailbreak_scale(self) -> float:
        """The scale that answers the most training prompts; if several do, the smallest."""
        return min(self.scales, key=lambda s: (-self.scales[s].train.answered, abs(s), -s))

    @property
    def refusal_scale(self) -> float:
        """The scale of the other sign that refuses the most harmless prompts: refusal by subtraction."""
        other = [s for s in self.scales if s * self.jailbreak_scale < 0]
        return min(other, key=lambda s: (-self.scales[s].harmless.refused, abs(s)))

    @property
    def transfer(self) -> float:
        """Share of held-out jailbreaks that the scale chosen on training prompts loses against the best scale there."""
        best = max(c.heldout.answered for c in self.scales.values())
        return best - self.scales[self.jailbreak_scale].heldout.answered

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return dump(self) | {
            "scales": {f"{s:g}": dump(c) for s, c in self.scales.items()},
            "random": {f"{s:g}": dump(c) for s, c in self.random.items()},
            "jailbreak_scale": self.jailbreak_scale,
            "refusal_scale": self.refusal_scale,
            "transfer": self.transfer,
        }

    def save(self, path: Path) -> Path:
        """Write the study as JSON, whole or not at all."""
        return write_result(path, FORMAT, self.to_dict())


def study_refusals(
    loaded: LoadedModel,
    bank: VectorBank,
    vector: int,
    train: Sequence[str] = (BOMB,),
    heldout: Sequence[str] = REFUSED,
    harmless: Sequence[str] = INNOCUOUS,
    scales: Sequence[float] = SCALES,
    max_new_tokens: int = 64,
    progress: OnProgress | None = None,
) -> RefusalStudy:
    """Study one vector.

    Args:
        train: user messages that a model should refuse.
        heldout: the same, none of them in `train`.
        harmless: user messages that a model should answer.
        scales: signed, of both signs.
        progress: called with (answers so far, all answers, what is being answered).

    Raises:
        PromptError: a group is empty, or a training prompt is held out too.
        ConfigError: the scales lack a sign. BankError: there is no such vector, or it is of another model.
    """
    bank.check_fits(loaded)
    own = bank.vector(vector)
    if not train or not heldout or not harmless:
        raise PromptError("training, held-out and harmless prompts are needed; one group is empty.")
    if shared := {_plain(t) for t in train} & {_plain(t) for t in heldout}:
        raise PromptError(f"the prompt {min(shared)[:60]!r} is in training and held out; remove one of them.")
    if not any(s > 0 for s in scales) or not any(s < 0 for s in scales):
        raise ConfigError(f"the scales are {tuple(scales)}; give at least one above and one below 0.")
    prompts = [chat(t) for t in (*train, *heldout, *harmless)]
    first, second = len(train), len(train) + len(heldout)
    sampling, n = Sampling(max_new_tokens), len(prompts)
    generator = torch.Generator().manual_seed((bank.config.seed + 2**31) % 2**32)
    noise = torch.randn(own.shape, generator=generator)
    noise = noise * own.norm() / noise.norm()
    total, done = n * (2 + 2 * len(scales)), 0

    def answered(row: torch.Tensor | None, what: str) -> Condition:
        nonlocal done
        vectors = None if row is None else row.expand(n, -1)
        texts = complete(loaded, prompts, vectors, bank.layer, sampling)
        done += n
        notify(progress, done, total, what)
        return Condition(Rate.of(texts[:first]), Rate.of(texts[first:second]), Rate.of(texts[second:]))

    unsteered = answered(None, "unsteered")
    with ablate(loaded, own):
        ablated = answered(None, "ablated")
    steered = {float(s): answered(own * s, f"x {s:g}") for s in scales}
    control = {float(s): answered(noise * s, f"random x {s:g}") for s in scales}
    return RefusalStudy(loaded.name, vector, unsteered, ablated, steered, control)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
