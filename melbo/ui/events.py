"""Which handler each event calls, and what gradio needs around it. All that runs the model shares one queue slot."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import gradio as gr
from gradio.events import api

from melbo.bank import VectorBank
from melbo.errors import MelboError
from melbo.prompts import DEFAULT_SYSTEM
from melbo.ui.choices import presets, vector_note
from melbo.ui.conversation import from_view, to_view
from melbo.ui.handlers import Context, Settings, Update, again, caption, compare

_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


class Steering(NamedTuple):
    """The controls that choose what is added."""

    preset: gr.Radio
    note: gr.HTML
    vector: gr.Dropdown
    scale: gr.Slider
    control: gr.Checkbox


class Panes(NamedTuple):
    """The two chats and the line above the steered one."""

    unsteered: gr.Chatbot
    steered: gr.Chatbot
    head: gr.HTML


class MessageBox(NamedTuple):
    """Where messages are typed, and the buttons beside it."""

    text: gr.Textbox
    send: gr.Button
    stop: gr.Button
    retry: gr.Button
    clear: gr.Button


def connect(
    context: Context, steering: Steering, panes: Panes, box: MessageBox, settings: Sequence[gr.components.Component]
) -> None:
    """Attach every event; call inside the Blocks."""
    chosen = [steering.vector, steering.scale, steering.control]
    values = [panes.unsteered, panes.steered, *chosen, *settings]
    sent = gr.on(
        [box.send.click, box.text.submit],
        partial(send, context), [box.text, *values], [box.text, *panes], **_QUIET, **_MODEL,
    )  # fmt: skip
    repeated = box.retry.click(partial(retry, context), values, list(panes), cancels=[sent], **_QUIET, **_MODEL)
    box.stop.click(None, cancels=[sent, repeated], **_QUIET)
    box.clear.click(partial(clear, context.bank), chosen, list(panes), cancels=[sent, repeated], queue=False, **_QUIET)
    steering.preset.input(
        partial(pick_preset, context.bank), steering.preset, [steering.vector, steering.scale, steering.note],
        queue=False, **_QUIET,
    )  # fmt: skip
    steering.vector.input(
        partial(pick_vector, context.bank), steering.vector, [steering.preset, steering.note], queue=False, **_QUIET
    )
    api(endpoint(context), api_name="chat", **_MODEL)


@contextmanager
def shown() -> Iterator[None]:
    """Turn a MelboError into the app's error message, escaped: the browser would render and fetch what it quotes."""
    try:
        yield
    except MelboError as error:
        raise gr.Error(html.escape(str(error), quote=False), title="Not sent", print_exception=False) from error


def send(context: Context, message: str, left: Any, right: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
    """Answer `message` in both panes; yields the emptied message box, both panes, and the steered pane's head."""
    with shown():
        settings = read_settings(*values)
        for update in compare(context, message or "", from_view(left), from_view(right), settings):
            yield "", *_render(context.bank, settings, update)


def retry(context: Context, left: Any, right: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
    """Answer the last question again; yields both panes and the steered pane's head."""
    with shown():
        settings = read_settings(*values)
        for update in again(context, from_view(left), from_view(right), settings):
            yield _render(context.bank, settings, update)


def clear(bank: VectorBank, vector: int, scale: float, control: bool) -> tuple[Any, ...]:
    """Empty panes, and a head that fits the controls."""
    return [], [], head_html(bank, vector, scale, control)


def pick_preset(bank: VectorBank, position: int) -> tuple[Any, ...]:
    """Vector, scale and note of the preset that was picked."""
    preset = presets(bank)[position]
    return preset.vector, preset.scale, note_html(preset.note)


def pick_vector(bank: VectorBank, vector: int | None) -> tuple[Any, ...]:
    """Preset to mark (none, unless it is this vector's) and note of the vector that was picked."""
    if vector is None:
        return None, note_html("")
    position = next((i for i, p in enumerate(presets(bank)) if p.vector == vector), None)
    return position, note_html(vector_note(bank, vector))


def read_settings(
    vector: int | None, scale: float, control: bool, system: str, temperature: float, top_p: float,
    tokens: float, seed: float | None, positions: Any,
) -> Settings:  # fmt: skip
    """Settings from the components' values, in the page's order.

    Raises:
        ConfigError: a value is missing or out of range.
    """
    tokens = int(tokens) if isinstance(tokens, float) and tokens.is_integer() else tokens
    return Settings(vector, scale, control, system or "", temperature, top_p, tokens, seed, positions)  # type: ignore[arg-type]


def endpoint(context: Context) -> Callable[..., tuple[str, str]]:
    """The public API's one function."""

    def chat(
        message: str,
        vector: int = 0,
        scale: float = 1.0,
        control: bool = False,
        system: str = DEFAULT_SYSTEM,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int = 96,
        seed: int = 0,
        positions: str = "all",
    ) -> tuple[str, str]:
        """The unsteered and the steered answer to one message."""
        with shown():
            settings = read_settings(
                vector, scale, control, system, temperature, top_p, max_new_tokens, seed, positions
            )
            *_, last = compare(context, message, [], [], settings)
            return last.unsteered[-1]["content"], last.steered[-1]["content"]

    return chat


def head_html(bank: VectorBank, vector: int | None, scale: float, control: bool) -> str:
    """The line above the steered pane; with no vector chosen, the name alone."""
    what = "" if vector is None else html.escape(caption(bank, vector, scale, control))
    return f'<div class="pane-head steered"><b>Steered</b><span title="{what}">{what}</span></div>'


def note_html(text: str) -> str:
    """A curator's note, as text."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def _render(bank: VectorBank, settings: Settings, update: Update) -> tuple[Any, ...]:
    if update.notice:
        gr.Info(html.escape(update.notice, quote=False))
    return (
        to_view(update.unsteered, update.finished),
        to_view(update.steered, update.finished),
        head_html(bank, settings.vector, settings.scale, settings.control),
    )
