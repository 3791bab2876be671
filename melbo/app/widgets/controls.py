"""Sliders and download buttons as all tabs have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from melbo.app.downloads import click_on
from melbo.app.events import QUIET
from melbo.app.notice import with_notice


def slider(label: str, low: float, high: float, value: float, elem_id: str, **given: Any) -> gr.Slider:
    """A slider of whole numbers, without a button that resets it."""
    settings: dict[str, Any] = {"step": 1, "min_width": 200, "buttons": []} | given
    return gr.Slider(low, high, value=value, label=label, elem_id=elem_id, **settings)


def hidden_file(elem_id: str) -> gr.DownloadButton:
    """What hands a file to the browser: see `downloads_by`."""
    return gr.DownloadButton("File", visible="hidden", elem_id=elem_id)


def downloads_by(
    button: gr.Button,
    write: Callable[..., str],
    inputs: Component | Sequence[Component],
    said: gr.HTML,
    file: gr.DownloadButton,
) -> None:
    """Pressed, the button lets `write` make a file, and the browser fetches it.

    Args:
        write: gives the file's path.
        said: the tab's notice.
    """
    made = button.click(with_notice(write, 1), inputs, [said, file], **QUIET)
    made.success(None, js=click_on(str(file.elem_id)), **QUIET)
