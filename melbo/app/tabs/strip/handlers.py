"""One prompt, one vector, many scales in one batch, each answer measured. No gradio here."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch

from melbo.annotation.table import usable_ranges
from melbo.app.choices import LARGEST_SCALE, MAX_SCALE, scale_limit, scale_step
from melbo.app.context import Context
from melbo.app.conversation import MAX_CHARACTERS
from melbo.app.jobs.event import JobEvent, JobEvents
from melbo.app.jobs.worker import JobHandle, follow, watched
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, MetricError, PromptError
from melbo.measure.coherence import COHERENT, CoherenceScale, calibrate_coherence, coherence, typical_nll
from melbo.measure.likelihood import completion_nll
from melbo.measure.text_metrics import is_refusal
from melbo.models.load import LoadedModel
from melbo.prompts import chat
from melbo.steering.generate import Sampling, stream

MAX_TOKENS = 64
"""Tokens of a card's answer."""
MIN_REACH = 0.01
CARDS = 9
REACH = MAX_SCALE / 2
"""Where the bank's usable scale is not known."""

Kind = Literal["unsteered", "same", "refusal", "changed", "salad"]


@dataclass(frozen=True)
class Card:
    """One scale's answer; measured once it is complete."""

    scale: float
    text: str
    coherence: float | None = None
    """0 to 10; None while it is written, or where this model cannot judge."""
    refusal: bool = False
    same: bool = False
    """The unsteered answer, to the letter."""

    @property
    def kind(self) -> Kind:
        """In one word what steering did."""
        if self.scale == 0:
            return "unsteered"
        if self.same:
            return "same"
        if self.coherence is not None and self.coherence < COHERENT:
            return "salad"
        return "refusal" if self.refusal else "changed"


@dataclass(frozen=True)
class Strip:
    """All cards, from the most negative scale to the most positive."""

    cards: tuple[Card, ...]
    finished: bool = False
    ranges: tuple[tuple[float, float], ...] = ()
    """Scales of each sign at which the answer is another one and coherent."""


class Calibration:
    """A model's coherence scale: the bank's own where it holds one, else found once, on the model's first strip."""

    def __init__(self) -> None:
        self.found: WeakKeyDictionary[Any, CoherenceScale | None] = WeakKeyDictionary()

    def scale(
        self, loaded: LoadedModel, bank: VectorBank, check: Callable[[], None] = lambda: None
    ) -> CoherenceScale | None:
        """None where this model cannot judge coherence.

        Args:
            check: called before each of the model's passes; an exception of it ends the search, and the next strip
                starts anew.
        """
        stored = bank.details.get("annotation")
        if isinstance(stored, dict) and isinstance(stored.get("coherence_scale"), dict):
            try:
                return CoherenceScale.from_dict(stored["coherence_scale"])
            except MetricError:
                pass  # a bank may come from anybody
        if loaded.model not in self.found:
            try:
                self.found[loaded.model] = calibrate_coherence(watched(loaded, check))
            except MetricError:
                self.found[loaded.model] = None
        return self.found[loaded.model]


@dataclass(frozen=True)
class Reach:
    """The slider of how far a strip reaches."""

    low: float
    high: float
    step: float
    value: float


def reach_of(bank: VectorBank) -> Reach:
    """From twice the largest usable scale on, so that CARDS scales have two digits after the point."""
    high, largest = scale_limit(bank), bank.usable_scale.largest
    if largest is None:
        return Reach(0.25, high, 0.25, REACH)
    step, half = scale_step(high), CARDS // 2
    return Reach(step, high, step, min(high, half * max(MIN_REACH, round(2 * largest / half, 2))))


def grid(reach: float, cards: float) -> tuple[float, ...]:
    """`cards` scales (odd) from -reach to reach, evenly spaced, 0 in the middle.

    Raises:
        ConfigError: a value is out of range.
    """
    if isinstance(reach, bool) or not isinstance(reach, (int, float)) or not MIN_REACH <= reach <= LARGEST_SCALE:
        raise ConfigError(f"the reach is {reach!r}; choose {MIN_REACH:g} to {LARGEST_SCALE:g}.")
    if isinstance(cards, float) and cards.is_integer():
        cards = int(cards)
    if isinstance(cards, bool) or not isinstance(cards, int) or cards < 3 or cards % 2 == 0:
        raise ConfigError(f"the number of cards is {cards!r}; choose an odd number from 3.")
    half = int(cards) // 2
    return tuple(round(reach * i / half, 4) + 0.0 for i in range(-half, half + 1))


def scale_strip(
    context: Context,
    calibration: Calibration,
    bank: VectorBank,
    prompt: str,
    system: str,
    vector: int,
    scales: tuple[float, ...],
) -> JobEvents[Strip, Strip]:
    """Answers at all scales, in one batch: each token gives a new value, and the result has everything measured.

    Closing the iterator stops the model.

    Raises:
        MelboError: the prompt is empty or too long, there is no such vector, or more scales than one request may ask.
            Always before the first event.
    """
    if not 1 <= len(scales) <= context.limits.rows:
        raise ConfigError(f"{len(scales)} scales were asked for; choose 1 to {context.limits.rows}.")
    for scale in scales:
        Settings(((vector, scale),))
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptError("the prompt is empty; write at least one character.")
    if max(len(prompt), len(system)) > MAX_CHARACTERS:
        raise PromptError(f"the prompt has more than {MAX_CHARACTERS:,} characters; shorten it.")
    loaded = context.model(bank)
    order = (*scales, 0.0)  # the last row is what the others are compared with
    rows = torch.stack([bank.vector(vector, scale) for scale in order])
    asked = chat(prompt.strip(), system)
    sampling = Sampling(min(MAX_TOKENS, context.limits.new_tokens))

    def work(job: JobHandle[Strip]) -> Strip:
        texts = [""] * len(order)
        with closing(stream(loaded, [asked] * len(order), rows, bank.layer, sampling)) as answers:
            for texts in context.within_time(answers):
                job.tell(JobEvent(value=Strip(tuple(Card(s, t) for s, t in zip(scales, texts, strict=False)))))
                job.check()
        judge = calibration.scale(loaded, bank, job.check)
        return measured(watched(loaded, job.check), judge, asked, scales, texts)

    return follow(work, context.lock, 2 * context.limits.seconds)  # measuring takes no longer than writing


def measured(
    loaded: LoadedModel,
    judge: CoherenceScale | None,
    asked: list[dict[str, str]],
    scales: tuple[float, ...],
    texts: list[str],
) -> Strip:
    """The finished strip; the last text is the unsteered one."""
    losses = completion_nll(loaded, [asked] * len(scales), texts[:-1]) if judge else []
    cards = []
    for i, scale in enumerate(scales):
        score = coherence(typical_nll(losses[i]), judge, texts[i]) if judge else None
        cards.append(Card(scale, texts[i], score, is_refusal(texts[i]), texts[i] == texts[-1]))
    acts = [c.scale != 0 and c.kind in ("changed", "refusal") for c in cards]
    return Strip(tuple(cards), True, usable_ranges(scales, acts))
