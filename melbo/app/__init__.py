"""The chat app: the same model twice, side by side, once with a steering vector added."""

from melbo.app.layout import build_demo
from melbo.app.theme import launch_options

__all__ = ["build_demo", "launch_options"]
