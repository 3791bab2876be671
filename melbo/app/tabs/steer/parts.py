"""Names for the Steer tab's components, between the file that makes them and the one that wires them."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr


class Place(NamedTuple):
    """Room for one vector of the mix."""

    row: gr.Row
    vector: gr.Dropdown
    scale: gr.Slider
    bar: gr.HTML
    remove: gr.Button


class Box(NamedTuple):
    """Where messages are typed, and the buttons beside it."""

    text: gr.Textbox
    send: gr.Button
    stop: gr.Button
    retry: gr.Button
    edit: gr.Button
    clear: gr.Button


class Share(NamedTuple):
    """The drawer for taking a comparison elsewhere."""

    link: gr.Button
    json: gr.Button
    markdown: gr.Button
    code: gr.Button
    address: gr.Textbox
    source: gr.Code
    file: gr.Textbox
    """Hidden: the text that the browser saves."""


class SteerParts(NamedTuple):
    """The whole tab."""

    notice: gr.HTML
    preset: gr.Radio
    note: gr.HTML
    places: tuple[Place, ...]
    add: gr.Button
    side: gr.Radio
    instruction: gr.Textbox
    left: gr.Chatbot
    right: gr.Chatbot
    head: gr.HTML
    tokens: gr.HTML
    box: Box
    colour: gr.Checkbox
    examples: tuple[gr.Button, ...]
    settings: tuple[gr.components.Component, ...]
    share: Share

    @property
    def values(self) -> list[Any]:
        """Inputs in the order of `read_settings`."""
        mix = [c for place in self.places for c in (place.vector, place.scale)]
        return [*mix, self.side, self.instruction, *self.settings]
