"""Histories of the two chats: between the browser's form and the model's, and cut to fit the context.

A chat pane puts a message into the page as HTML, even where markdown is off, so a model that writes an image tag would
make the browser fetch it. The panes therefore get escaped text, and what comes back is unescaped: an exact round trip.
"""

import html
from collections.abc import Sequence
from typing import Any

from melbo.errors import PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode

MAX_CHARACTERS = 20_000
"""Longest message or system prompt taken: a guard before the tokenizer runs."""
EMPTY_ANSWER = "(the model ended its turn without a word)"
_NO_LIMIT = 10**9


def flatten(content: Any) -> str:
    """Text of a chat message as the browser sends it: a string, or parts such as {"type": "text", "text": ...}."""
    parts = content if isinstance(content, list) else [content]
    return "".join(p if isinstance(p, str) else str(p.get("text") or "") for p in parts if isinstance(p, (str, dict)))


def from_view(messages: Sequence[Any] | None) -> list[Message]:
    """The turns of a chat pane as the model reads them; anything but the two speakers' text is left out."""
    found = []
    for message in messages or []:
        if isinstance(message, dict) and message.get("role") in ("user", "assistant"):
            text = html.unescape(flatten(message.get("content")))
            empty = message["role"] == "assistant" and text == EMPTY_ANSWER
            found.append({"role": message["role"], "content": "" if empty else text})
    return found


def to_view(messages: Sequence[Message], finished: bool = True) -> list[dict[str, Any]]:
    """The turns as a chat pane shows them: text, never HTML. An unfinished empty answer stays empty."""
    shown = []
    for i, message in enumerate(messages):
        text = message["content"]
        if message["role"] == "assistant" and not text.strip() and (finished or i < len(messages) - 1):
            text = EMPTY_ANSWER
        shown.append({"role": message["role"], "content": [{"type": "text", "text": html.escape(text, quote=False)}]})
    return shown


def turn(user: str, assistant: str | None = None) -> list[Message]:
    """One question, with its answer if there is one yet."""
    asked = [{"role": "user", "content": user}]
    return asked if assistant is None else [*asked, {"role": "assistant", "content": assistant}]


def before_last_question(history: Sequence[Message]) -> tuple[list[Message], str | None]:
    """The turns before the last question, and that question; (all, None) where nothing was asked."""
    for i in range(len(history) - 1, -1, -1):
        if history[i]["role"] == "user":
            return list(history[:i]), history[i]["content"]
    return list(history), None


def answered(history: Sequence[Message]) -> list[Message]:
    """The turns up to the last answer."""
    return list(history[:-1] if history and history[-1]["role"] == "user" else history)


def _newest(history: Sequence[Message]) -> list[Message]:
    """The newest turns that stay within MAX_CHARACTERS in all; the browser may send anything."""
    room = MAX_CHARACTERS
    kept: list[Message] = []
    for message in reversed(history):
        room -= len(message["content"]) + 1
        if room < 0:
            break
        kept.insert(0, message)
    return kept


def fit(
    loaded: LoadedModel, system: str, history: Sequence[Message], question: str, new_tokens: int
) -> tuple[list[Message], int]:
    """Messages for the model, and how many of the oldest turns were left out to leave room for the answer.

    Args:
        system: system prompt; "" leaves it out.
        history: earlier turns.
        new_tokens: room to keep for the answer, in tokens.

    Raises:
        PromptError: the question is empty, or too long even without the earlier turns.
    """
    if max(len(question), len(system)) > MAX_CHARACTERS:
        raise PromptError(f"the message has more than {MAX_CHARACTERS:,} characters; shorten it.")
    head = [{"role": "system", "content": system}] if system.strip() else []
    history = _newest(history)
    starts = [i for i, message in enumerate(history) if message["role"] == "user"]
    for dropped, start in enumerate(starts):
        messages = [*head, *history[start:], *turn(question)]
        if len(encode(loaded.tokenizer, messages, _NO_LIMIT)) + new_tokens <= loaded.context:
            return messages, dropped
    messages = [*head, *turn(question)]
    encode(loaded.tokenizer, messages, loaded.context - 1)
    return messages, len(starts)
