"""Events that several tabs share: what gradio needs around a function."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.notice import with_notice

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""An event of the page that is no endpoint of the API."""
QUIET: dict[str, Any] = PRIVATE | {"show_progress": "hidden"}
"""And shows no progress."""
LOCAL: dict[str, Any] = QUIET | {"queue": False}
"""And waits for nobody: for work of a moment."""
SHARED: dict[str, Any] = QUIET | {"concurrency_limit": None}
"""Of events that change what other tabs listen to: a State tells of a change only where the event is queued."""
SLOW: dict[str, Any] = QUIET | {"concurrency_limit": 4}
"""Of events that wait for the disk or the Hub."""


def model_event(place: Component) -> dict[str, Any]:
    """Of events that run a model, one at a time: `place` shows how many are before this one, and that it runs."""
    return PRIVATE | MODEL_EVENT | {"show_progress": "minimal", "show_progress_on": place}


def connect(
    said: gr.HTML,
    trigger: Callable[..., Any] | list[Callable[..., Any]],
    fn: Callable[..., Any],
    inputs: Component | Sequence[Any] | None,
    outputs: Sequence[Any],
    **event: Any,
) -> Any:
    """An event whose failures show at `said`.

    Args:
        trigger: such as `button.click`, or several.
        fn: gives a value for each of the outputs, see `with_notice`.
    """
    start: Callable[..., Any] = partial(gr.on, trigger) if isinstance(trigger, list) else trigger
    return start(with_notice(fn, len(outputs)), inputs, [said, *outputs], **event)
