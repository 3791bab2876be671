"""What happens when somebody sends a message: two rows of one batch, without and with the vectors. No gradio here."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.app.choices import label_at
from melbo.app.context import Context
from melbo.app.conversation import answered, before_last_question, fit, turn
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, PromptError
from melbo.inspect.lens.token_change import TokenChange, token_changes
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.steering.common_random_numbers import with_shared_draws
from melbo.steering.generate import stream
from melbo.steering.random_vectors import control_vectors


@dataclass(frozen=True)
class Update:
    """Both chats at one moment of an answer."""

    unsteered: list[Message]
    steered: list[Message]
    finished: bool = False
    notice: str | None = None
    """Something the visitor should know, said once."""


def steering_vector(bank: VectorBank, settings: Settings) -> Tensor:
    """What is added on the right, [d_model]: the sum of scale * vector; a random direction of that norm, which belongs
    to these vectors; or zeros for an instruction.

    Raises:
        BankError: there is no such vector.
    """
    vector = torch.stack([bank.vector(i, scale) for i, scale in settings.mix]).sum(dim=0)
    if settings.side == "prompt":
        return torch.zeros_like(vector)
    if settings.side == "vector":
        return vector
    drawn = control_vectors(len(bank), bank.base_model.d_model, bank.radius, bank.config.orthogonal, bank.config.seed)
    random = torch.stack([drawn[i] * scale for i, scale in settings.mix]).sum(dim=0)
    norm = random.norm()
    return random * (vector.norm() / norm) if norm > 0 else vector * 0


def caption(bank: VectorBank, settings: Settings) -> str:
    """What the right side gets: "1.70 × 17 · German"."""
    if settings.side == "prompt":
        return f"told: {settings.instruction.strip() or 'nothing'}"
    mix = " + ".join(f"{scale:.2f} × {label_at(bank, vector, scale)}" for vector, scale in settings.mix)
    return f"random, norm of {mix}" if settings.side == "random" else mix


def compare(
    context: Context,
    bank: VectorBank,
    question: str,
    unsteered: list[Message],
    steered: list[Message],
    settings: Settings,
) -> Generator[Update, None, None]:
    """Ask both sides the question, each with its own earlier turns, and yield the chats after each token. An earlier
    question that was stopped before its first word gives way.

    The first update comes before the model runs and holds the question alone. Closing the iterator stops the model.
    Above temperature 0 both sides get the same random draws.

    Raises:
        MelboError: nothing was asked, or the question or a setting does not fit. Always before the first update.
    """
    question = question.strip()
    most = context.limits.new_tokens
    if settings.max_new_tokens > most:
        raise ConfigError(f"max new tokens is {settings.max_new_tokens}; choose 1 to {most}.")
    vector = steering_vector(bank, settings)
    chats = (answered(unsteered), answered(steered))
    model = context.model(bank)
    prompts, notice = _fitted(model, question, chats, settings)
    yield Update([*chats[0], *turn(question)], [*chats[1], *turn(question)], notice=notice)

    def after(texts: list[str], finished: bool = False) -> Update:
        left, right = ([*past, *turn(question, text)] for past, text in zip(chats, texts, strict=True))
        return Update(left, right, finished)

    texts = ["", ""]
    rows = torch.stack([torch.zeros_like(vector), vector])  # [2, d_model]
    loaded, sampling = with_shared_draws(model, settings.sampling())
    with context.lock:
        answers = stream(loaded, prompts, rows, bank.layer, sampling, settings.positions)
        with closing(answers):
            for texts in context.within_time(answers):
                yield after(texts)
    yield after(texts, finished=True)


def _fitted(
    loaded: LoadedModel, question: str, chats: tuple[list[Message], list[Message]], settings: Settings
) -> tuple[list[list[Message]], str | None]:
    """Both sides' conversations as they fit the model, and what to say where old turns were left out."""
    fitted = [
        fit(loaded, system, past, question, settings.max_new_tokens)
        for system, past in zip((settings.system, settings.right_system()), chats, strict=True)
    ]
    notice = f"The oldest turns are left out: the model's context holds {loaded.context} tokens."
    return [messages for messages, _ in fitted], notice if any(dropped for _, dropped in fitted) else None


def again(
    context: Context, bank: VectorBank, unsteered: list[Message], steered: list[Message], settings: Settings
) -> Generator[Update, None, None]:
    """Ask the last question once more, with the settings as they are now; the old answers stay until the first word.

    Raises:
        MelboError: as `compare`, or nothing has been asked yet.
    """
    left, question = before_last_question(unsteered)
    right, _ = before_last_question(steered)
    if question is None:
        raise PromptError("there is nothing to repeat yet; send a message first.")
    with closing(compare(context, bank, question, left, right, settings)) as updates:
        first = next(updates)
        yield Update(unsteered, steered, notice=first.notice)
        yield from updates


def last_changes(context: Context, bank: VectorBank, steered: list[Message], settings: Settings) -> list[TokenChange]:
    """The last steered answer's tokens and how the right side's settings changed their probabilities; [] without one.

    Raises:
        MelboError: a setting does not fit.
    """
    past, question = before_last_question(steered)
    if question is None or steered[-1]["role"] != "assistant":
        return []
    loaded, vector = context.model(bank), steering_vector(bank, settings)
    room = min(settings.max_new_tokens, context.limits.new_tokens)
    prompt, _ = fit(loaded, settings.right_system(), past, question, room)
    plain, _ = fit(loaded, settings.system, past, question, room)
    with context.lock:
        return token_changes(loaded, prompt, steered[-1]["content"], vector, bank.layer, settings.positions, plain)
