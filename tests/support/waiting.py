"""Wait for something to come true, instead of for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds: far longer than anything takes on a busy machine."""


def until(true: Callable[[], object], seconds: float = PATIENCE, every: float = 0.01) -> None:
    """Return once `true()` is; fail where it is not within `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(every)


def settled(read: Callable[[], T], readings: int = 5, every: float = 0.15, seconds: float = PATIENCE) -> T:
    """What `read` gives once it has given the same that many times in a row; fail where it never does."""
    seen = [read()]

    def steady() -> bool:
        seen.append(read())
        return len(seen) >= readings and all(value == seen[-1] for value in seen[-readings:])

    until(steady, seconds, every)
    return seen[-1]
