"""What happens when somebody sends a message: two rows of one batch, without and with the vector. No gradio here."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melbo.bank import VectorBank
from melbo.discover.random_control import control_vectors
from melbo.errors import ConfigError, PromptError
from melbo.generate import Sampling, stream
from melbo.models import LoadedModel
from melbo.prompts import Message
from melbo.steering import POSITIONS, Positions
from melbo.ui.choices import MAX_SCALE, vector_label
from melbo.ui.conversation import before_last_question, fit, turn

MAX_NEW_TOKENS = 200


@dataclass(frozen=True)
class Context:
    """What all visitors share."""

    loaded: LoadedModel
    bank: VectorBank
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the model runs. A cancelled run can overlap the next one by a token, and its hook with it."""


@dataclass(frozen=True)
class Settings:
    """What a visitor has chosen."""

    vector: int
    """Index in the bank."""
    scale: float
    """Multiplier of the vector, -8 to 8."""
    control: bool
    """Replace the vector by a random direction of the same norm."""
    system: str
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    positions: Positions

    def __post_init__(self) -> None:
        for name in ("vector", "max_new_tokens", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} is {value!r}; choose a whole number.")
        for name in ("scale", "temperature", "top_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"{name} is {value!r}; choose a number.")
        if abs(self.scale) > MAX_SCALE:
            raise ConfigError(f"scale is {self.scale}; choose -{MAX_SCALE:g} to {MAX_SCALE:g}.")
        if not 1 <= self.max_new_tokens <= MAX_NEW_TOKENS:
            raise ConfigError(f"max new tokens is {self.max_new_tokens}; choose 1 to {MAX_NEW_TOKENS}.")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; choose 0 to {2**31 - 1}.")
        if self.positions not in POSITIONS:
            raise ConfigError(f"positions is {self.positions!r}; choose one of {', '.join(POSITIONS)}.")

    def sampling(self) -> Sampling:
        """The part that the generator reads."""
        return Sampling(self.max_new_tokens, float(self.temperature), float(self.top_p), self.seed)


@dataclass(frozen=True)
class Update:
    """Both chats at one moment of an answer."""

    unsteered: list[Message]
    steered: list[Message]
    finished: bool = False
    notice: str | None = None
    """Something the visitor should know, said once."""


def steering_vector(bank: VectorBank, index: int, scale: float, control: bool) -> Tensor:
    """scale * vector, or scale * a random direction of the same norm that belongs to this vector, [d_model].

    Raises:
        BankError: there is no such vector.
    """
    vector = bank.vector(index, scale)
    if not control:
        return vector
    drawn = control_vectors(len(bank), bank.base_model.d_model, bank.radius, bank.config.orthogonal, bank.config.seed)
    return drawn[index] * scale


def caption(bank: VectorBank, vector: int, scale: float, control: bool = False) -> str:
    """What was added to the steered side: "1.70 × 17 · German"."""
    what = f"random direction, norm of {vector}" if control else vector_label(bank, vector)
    return f"{scale:.2f} × {what}"


def compare(
    context: Context, question: str, unsteered: list[Message], steered: list[Message], settings: Settings
) -> Iterator[Update]:
    """Ask both sides the question, each with its own earlier turns, and yield the chats after each token.

    The first update comes before the model runs and holds the question alone. Closing the iterator stops the model.

    Raises:
        MelboError: nothing was asked, or the question or a setting does not fit. Always before the first update.
    """
    question = question.strip()
    vector = steering_vector(context.bank, settings.vector, settings.scale, settings.control)
    sampling = settings.sampling()
    chats = (unsteered, steered)
    fitted = [fit(context.loaded, settings.system, past, question, sampling.max_new_tokens) for past in chats]
    notice = None
    if any(dropped for _, dropped in fitted):
        notice = (
            f"The oldest turns do not fit the model's context of {context.loaded.context} tokens; they are left out."
        )
    asked = [[*past, *turn(question)] for past in chats]
    yield Update(asked[0], asked[1], notice=notice)

    def after(texts: list[str], finished: bool = False) -> Update:
        left, right = ([*past, *turn(question, text)] for past, text in zip(chats, texts, strict=True))
        return Update(left, right, finished)

    texts = ["", ""]
    prompts = [messages for messages, _ in fitted]
    rows = torch.stack([torch.zeros_like(vector), vector])  # [2, d_model]
    answers = stream(context.loaded, prompts, rows, context.bank.layer, sampling, settings.positions)
    with context.lock, closing(answers):
        for texts in answers:
            yield after(texts)
    yield after(texts, finished=True)


def again(context: Context, unsteered: list[Message], steered: list[Message], settings: Settings) -> Iterator[Update]:
    """Ask the last question once more, with the settings as they are now.

    Raises:
        MelboError: as `compare`, or nothing has been asked yet.
    """
    left, question = before_last_question(unsteered)
    right, _ = before_last_question(steered)
    if question is None:
        raise PromptError("there is nothing to repeat yet; send a message first.")
    yield from compare(context, question, left, right, settings)
