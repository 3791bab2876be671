"""How long work says where it is: the same for every tab and endpoint."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from melbo.errors import MelboError

V = TypeVar("V")
R = TypeVar("R")


@dataclass(frozen=True)
class JobEvent(Generic[V, R]):
    """One moment of long work: `done` of `total` steps of a phase, what they gave so far, or the result."""

    phase: str = ""
    """What is being done; "" where the event says nothing about it."""
    done: int = 0
    total: int = 0
    """0 where steps are not counted."""
    seconds_left: float | None = None
    """As the steps so far suggest; None until a few percent are done."""
    value: V | None = None
    """What there is so far, such as the objective after a training step, or a sweep of the first few R."""
    result: R | None = None
    """What the work was for; the last event of work that succeeds has it."""
    error: MelboError | None = None
    """Why the work failed; set only on the way out of a forked process, and raised here."""

    @property
    def place(self) -> str:
        """ " · 12 of 40 · about 8 s left"; "" where steps are not counted."""
        if self.total <= 0:
            return ""
        counted = f" · {self.done} of {self.total}"
        if self.seconds_left is None:
            return counted
        if self.seconds_left >= 90:
            return f"{counted} · about {self.seconds_left / 60:.0f} min left"
        return f"{counted} · about {self.seconds_left:.0f} s left"


JobEvents = Generator[list[JobEvent[V, R]], None, None]
"""What is new since the last time, which may be nothing. Closing it stops the work."""


def seconds_left(done: int, total: int, elapsed: float) -> float | None:
    """What the remaining steps take if they are like the first ones; None until a few percent are done.

    Args:
        elapsed: seconds since the start.
    """
    return None if total <= 0 or done < max(2, total // 50) else elapsed / done * (total - done)


def newest(events: Sequence[JobEvent[V, R]]) -> JobEvent[V, R]:
    """Several events as one: the latest place and value, and the result; an empty event where there are none."""
    place: JobEvent[V, R] = next((event for event in reversed(events) if event.phase or event.total), JobEvent())
    value = next((event.value for event in reversed(events) if event.value is not None), None)
    return replace(place, value=value, result=next((e.result for e in events if e.result is not None), None))


def updates(events: JobEvents[V, R]) -> Generator[JobEvent[V, R], None, None]:
    """The newest state of the work, as often as `events` yields, also where nothing is new: only between two values
    can a listener be found to have left. Closing it closes `events`.
    """
    with closing(events) as parts:
        for part in parts:
            yield newest(part)


def result_of(events: JobEvents[Any, R]) -> R:
    """The result of work that nobody watches."""
    return next(event.result for event in list(updates(events)) if event.result is not None)
