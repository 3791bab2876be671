"""The chat app: the same model twice, side by side, once with a steering vector added."""

from melbo.app.import_gradio import import_gradio

import_gradio()

from melbo.app.layout import build_demo  # noqa: E402
from melbo.app.theme import launch_options  # noqa: E402

__all__ = ["build_demo", "launch_options"]
