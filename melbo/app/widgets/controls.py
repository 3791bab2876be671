"""Components as all tabs have them: panels, sliders, choices of a vector, download buttons."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from melbo.app.choices import picker
from melbo.app.downloads import click_on
from melbo.app.events import QUIET, connect
from melbo.app.render import script, stylesheet
from melbo.bank.vector_bank import VectorBank


def panel(value: str, *sheets: str, elem_id: str | None = None, pick: bool = False) -> gr.HTML:
    """An HTML component, to which alone the style sheets apply.

    Args:
        value: HTML made by `render`.
        sheets: names of files in static/parts/.
        pick: a click, Enter or Space on an element with `data-pick` becomes the event `select` with that number.
    """
    given: dict[str, Any] = {"css_template": stylesheet(*sheets), "padding": False, "apply_default_css": False}
    if pick:
        given["js_on_load"] = script("pick")
    return gr.HTML(value, elem_id=elem_id, **given)


def slider(label: str, low: float, high: float, value: float, elem_id: str, **given: Any) -> gr.Slider:
    """A slider of whole numbers, without a button that resets it."""
    settings: dict[str, Any] = {"step": 1, "min_width": 200, "buttons": []} | given
    return gr.Slider(low, high, value=value, label=label, elem_id=elem_id, **settings)


def vector_choice(bank: VectorBank, value: Any, elem_id: str, label: str = "Vector", **given: Any) -> gr.Dropdown:
    """One of the bank's vectors."""
    fixed: dict[str, Any] = {"filterable": True, "interactive": True} | given
    return gr.Dropdown(picker(bank), value=value, label=label, elem_id=elem_id, **fixed)


def prompt_box(value: str, elem_id: str | None = None, label: str = "Prompt", **given: Any) -> gr.Textbox:
    """A line to write in, which grows to four."""
    return gr.Textbox(value, label=label, lines=1, max_lines=4, elem_id=elem_id, **given)


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
    made = connect(said, button.click, write, inputs, [file], **QUIET)
    made.success(None, js=click_on(str(file.elem_id)), **QUIET)
