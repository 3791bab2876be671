"""Where and when the model runs: ZeroGPU's decorator on a Space that has it, and one queue for all events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

try:
    import spaces  # before CUDA starts
except ImportError:
    spaces = None

MODEL = "model"
"""Concurrency id of every event that runs the model: one at a time, first come, first served."""
MODEL_EVENT: dict[str, Any] = {"concurrency_id": MODEL, "concurrency_limit": 1}
"""Arguments of such an event."""

Fn = TypeVar("Fn", bound=Callable[..., Any])


def on_device(fn: Fn, seconds: int = 60) -> Fn:
    """`fn`, with a GPU for at most `seconds` where this is a ZeroGPU Space; elsewhere `fn` itself.

    There it runs in a forked process: its arguments and results are pickled, and what it changes is lost.
    """
    return fn if spaces is None else spaces.GPU(duration=seconds)(fn)
