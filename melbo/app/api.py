"""The public API: named, typed functions for gradio_client and MCP, on the app's own bank or a curated one."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Literal

from melbo.app.choices import best_scale, usable, vector_label, vector_note
from melbo.app.context import Context
from melbo.app.conversation import turn
from melbo.app.endpoint import Run, endpoint, states
from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.jobs.event import JobEvent
from melbo.app.tabs.models.handlers import load_local, local_banks
from melbo.app.tabs.steer.handlers import Update, compare, last_changes
from melbo.app.tabs.steer.settings import Settings
from melbo.app.tabs.strip.handlers import Calibration, Strip
from melbo.app.tabs.strip.handlers import scale_strip as strip_steps
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError
from melbo.prompts import DEFAULT_SYSTEM


def publish(context: Context) -> None:
    """Add the endpoints; call inside the Blocks."""
    endpoint(chat, context, context.on_device(compare), **MODEL_EVENT)
    endpoint(token_changes, context, context.on_device(last_changes), **MODEL_EVENT)
    endpoint(scale_strip, context, context.on_device(strip_steps, Calibration()), **MODEL_EVENT)
    endpoint(vectors, context, queue=False)
    endpoint(banks, context, queue=False)


def _bank(context: Context, name: str) -> VectorBank:
    """The app's own bank, or the curated one of this name, whose model is in memory.

    Raises:
        BankError: there is none of this name, or its model is not in memory.
    """
    if not name:
        return context.own_bank
    bank = load_local(context, name)
    context.model(bank)
    return bank


def chat(
    context: Context,
    run: Run,
    message: str,
    vectors: list[int] = [0],  # noqa: B006  gradio publishes the default
    scales: list[float] = [1.0],  # noqa: B006
    side: Literal["vector", "random", "prompt"] = "vector",
    instruction: str = "",
    system: str = DEFAULT_SYSTEM,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int = 96,
    seed: int = 0,
    positions: Literal["all", "prompt", "generated"] = "all",
    bank: str = "",
) -> Iterator[tuple[str, str]]:
    """Answer one message twice: without steering, and with scale * vector added to the activations.

    Args:
        message: the question.
        vectors: 1 to 4 numbers of vectors, see /vectors.
        scales: one for each vector, -50 to 50.
        side: "vector"; "random" for a random vector of the same norm; "prompt" for the instruction instead.
        instruction: follows the system prompt where side is "prompt".
        system: system prompt; "" leaves it out.
        temperature: 0 is greedy; above, both answers share their random draws, which the seed chooses.
        top_p: above 0, at most 1: draw from the likeliest tokens that hold this much probability.
        max_new_tokens: of each answer.
        seed: of the draws.
        positions: where the vector is added: "all", the "prompt" alone, or the "generated" tokens alone.
        bank: name of a curated bank, see /banks; "" for the app's own.

    Returns:
        The unsteered and the steered answer so far; the last pair is complete.
    """
    sampling = (temperature, top_p, max_new_tokens, seed)
    settings = Settings(_mix(vectors, scales), side, instruction, system, *sampling, positions)
    yield from _pairs(run(_bank(context, bank), message, [], [], settings))


def _mix(vectors: list[int], scales: list[float]) -> tuple[tuple[int, float], ...]:
    if len(vectors) != len(scales):
        raise ConfigError(f"{len(vectors)} vectors and {len(scales)} scales were given; give as many of each.")
    return tuple(zip(vectors, scales, strict=True))


def _pairs(updates: Generator[Update, None, None]) -> Iterator[tuple[str, str]]:
    """Both answers of each update that has them."""
    with closing(updates):
        for update in updates:
            if update.unsteered[-1]["role"] == "assistant":
                yield update.unsteered[-1]["content"], update.steered[-1]["content"]


def token_changes(
    context: Context, run: Run, message: str, answer: str, vector: int = 0, scale: float = 1.0, bank: str = ""
) -> list[dict[str, Any]]:
    """How much steering changes the probability of each token of an answer.

    Args:
        message: the question.
        answer: a text that answers it, such as the steered answer of /chat.
        vector: number of a vector.
        scale: -50 to 50.
        bank: name of a curated bank, see /banks; "" for the app's own.

    Returns:
        For each token: text, unsteered and steered probability, change (log of their ratio, nats).
    """
    settings = Settings(((vector, scale),), max_new_tokens=1)
    return [vars(change) for change in run(_bank(context, bank), turn(message, answer), settings)]


def scale_strip(
    context: Context,
    run: Run,
    message: str,
    vector: int = 0,
    scales: list[float] = [-2.0, -1.0, 1.0, 2.0],  # noqa: B006
    system: str = DEFAULT_SYSTEM,
    bank: str = "",
) -> Iterator[list[dict[str, Any]]]:
    """Answer one message with one vector at many scales, in one batch.

    Args:
        message: the question.
        vector: number of a vector.
        scales: any, -50 to 50.
        system: system prompt.
        bank: name of a curated bank, see /banks; "" for the app's own.

    Returns:
        For each scale: scale, text, coherence (0 to 10), refusal, same (equal to the unsteered answer), kind. The
        texts so far; in the last list they are whole and measured.
    """
    nothing: list[dict[str, Any]] = []
    yield from states(run(_bank(context, bank), message, system, vector, tuple(scales)), nothing, _cards)


def _cards(shown: list[dict[str, Any]], event: JobEvent[Strip, Strip]) -> list[dict[str, Any]]:
    strip = event.result or event.value
    return [vars(card) | {"kind": card.kind} for card in strip.cards] if strip else shown


def vectors(context: Context, bank: str = "") -> list[dict[str, Any]]:
    """All vectors of a bank.

    Args:
        bank: name of a curated bank, see /banks; "" for the app's own.

    Returns:
        For each vector: its number, label, note, best scale, and usable scales as [lowest, highest] pairs.
    """
    found = _bank(context, bank)
    return [
        {
            "vector": i,
            "label": vector_label(found, i),
            "note": vector_note(found, i),
            "scale": best_scale(found, i),
            "usable": [list(pair) for pair in usable(found, i)],
        }
        for i in range(len(found))
    ]


def banks(context: Context) -> list[dict[str, Any]]:
    """The curated banks of this app, whose vectors can be listed and steered with.

    Returns:
        For each bank: name, model, method, number of vectors, block, and whether its model is in memory.
    """
    return [
        {
            "bank": info.name,
            "model": info.base_model,
            "method": info.method,
            "vectors": info.n_vectors,
            "block": info.source_layer,
            "usable": any(loaded.name == info.base_model for loaded in context.models.loaded()),
        }
        for info in local_banks()
        if info.problem is None
    ]
