"""A component that shows rendered HTML under style sheets of its own."""

from __future__ import annotations

from typing import Any

import gradio as gr

from melbo.app.render import script, stylesheet


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
