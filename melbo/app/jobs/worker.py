"""Long work in a thread of its own, followed step by step, that stops within a step when nobody listens any more.

A cancelled event, or a visitor who left, closes the event's generator at its next `yield`. So the generator yields at
least every BEAT seconds, whether or not anything is new, and the work looks at `JobHandle.check` between its steps and,
with a `watched` model, between its tokens.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from melbo.app.jobs.event import JobEvent, JobEvents, seconds_left
from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.runs.progress import Progress
from melbo.steering.hooks import edit_outputs

BEAT = 0.25
"""Longest time between two yields, in seconds."""
V = TypeVar("V")
R = TypeVar("R")


class Stopped(Exception):
    """Nobody listens any more."""


class JobHandle(Generic[V]):
    """What the work sees of its listener."""

    def __init__(self, seconds: float) -> None:
        self.events: list[JobEvent[V, Any]] = []
        self.changed = threading.Condition()
        self.stop = threading.Event()
        self.seconds = seconds
        self.started = time.monotonic()
        self.deadline = self.started + seconds

    def report(self, progress: Progress) -> None:
        """Hand a step to the listener, then `check`.

        Raises:
            Stopped, ConfigError: as `check`.
        """
        done, total = progress.done, progress.total
        left = seconds_left(done, total, time.monotonic() - self.started)
        value: Any = progress.value
        self.tell(JobEvent(progress.message, done, total, left, value))
        self.check()

    def tell(self, event: JobEvent[V, Any]) -> None:
        """Hand an event to the listener."""
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def check(self) -> None:
        """Call between steps.

        Raises:
            Stopped: the listener is gone.
            ConfigError: the work has taken longer than it may.
        """
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() > self.deadline:
            raise ConfigError(f"this took longer than the {self.seconds:g} s that one run may take; ask for less.")


def follow(
    work: Callable[[JobHandle[V]], R], lock: threading.Lock, seconds: float, first: Callable[[], Any] = lambda: None
) -> JobEvents[V, R]:
    """Run `work` while holding `lock`, and yield what is new since the last time, which may be nothing. What `work`
    returns is the result of the last event.

    Args:
        seconds: that the work may take, with waiting for the lock.
        first: called before the lock is taken: what takes long, needs no lock, and cannot be stopped.

    Closing the iterator stops the work at its next `check`, and waits for that for BEAT seconds at most: it is the
    server's own loop that closes an abandoned event, and all other visitors wait meanwhile. The lock is the work's
    until it ends.

    Raises:
        What `work` raises, after all its events.
    """
    job: JobHandle[V] = JobHandle(seconds)
    errors: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            first()
            while not lock.acquire(timeout=BEAT):
                job.check()
            try:
                job.check()
                job.started = time.monotonic()
                result = work(job)
            finally:
                lock.release()
            if result is not None:
                job.tell(JobEvent(result=result))
        except Stopped:
            pass
        except BaseException as error:  # handed to the listener's thread
            errors.append(error)
        finally:
            ended.set()
            with job.changed:
                job.changed.notify_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            with job.changed:
                if not job.events and not ended.is_set():
                    job.changed.wait(BEAT)
                last = ended.is_set()
                events, job.events = job.events, []
            if events or not last:
                yield events
            if last:
                break
        if errors:
            raise errors[0]
    finally:
        job.stop.set()
        thread.join(BEAT)


class _Asking(StoppingCriteria):
    """Lets the listener end a generation between two tokens."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002
        self.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class _Watched:
    """A model that asks whether to go on after each block of a pass and between tokens; all else is the model's own."""

    def __init__(self, model: Any, blocks: Any, check: Callable[[], None]) -> None:
        self._model, self._blocks, self._check = model, blocks, check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        def look(_: int, hidden: Tensor) -> Tensor:
            self._check()
            return hidden

        with edit_outputs(self._blocks, look):
            return self._model(*arguments, **named)

    def generate(self, **named: Any) -> Any:
        asked = [*(named.pop("stopping_criteria", None) or ()), _Asking(self._check)]
        return self._model.generate(**named, stopping_criteria=StoppingCriteriaList(asked))


class _WatchedBlock:
    """A block that asks whether to go on before each pass; all else, hooks too, is the block's own."""

    def __init__(self, block: Any, check: Callable[[], None]) -> None:
        self._block, self._check = block, check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._check()
        return self._block(*arguments, **named)


class _WatchedModel(LoadedModel):
    """Discovery runs blocks one by one, without the model around them."""

    @property
    def blocks(self) -> Any:
        """The decoder blocks, in order."""
        return [_WatchedBlock(block, self.model._check) for block in super().blocks]


def watched(loaded: LoadedModel, check: Callable[[], None]) -> LoadedModel:
    """The same model; `check` is called at each block of a pass, and between tokens, and may raise."""
    values = {f.name: getattr(loaded, f.name) for f in fields(loaded)}
    return _WatchedModel(**values | {"model": _Watched(loaded.model, loaded.blocks, check)})
