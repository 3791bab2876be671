"""What the package `spaces` (0.51) does to a decorated function on ZeroGPU, without a GPU.

As there: the function runs in a forked process of its own, arguments and results are pickled, a generator runs ahead of
its reader, only gradio's errors keep their text, and a generator that is closed stops after the value it is at work on.
"""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import gradio as gr

FORK = multiprocessing.get_context("fork")
WAIT = 60.0
"""Seconds for the next value."""


class Spaces:
    """Stands in for the module; remembers what it was asked."""

    def __init__(self) -> None:
        self.durations: list[int] = []
        self.runs = 0
        self.refusal: str | None = None
        """What the visitor is told instead of getting a GPU."""

    def GPU(self, *, duration: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """The decorator."""
        self.durations.append(duration)

        def decorate(task: Callable[..., Any]) -> Callable[..., Any]:
            if inspect.isgeneratorfunction(task):

                @wraps(task)
                def stream(*args: Any) -> Iterator[Any]:
                    yield from self._values(task, args)

                return stream

            @wraps(task)
            def call(*args: Any) -> Any:
                (value,) = self._values(task, args)
                return value

            return call

        return decorate

    def _values(self, task: Callable[..., Any], args: tuple[Any, ...]) -> Iterator[Any]:
        self.runs += 1
        if self.refusal is not None:
            raise titled(self.refusal, "ZeroGPU quota exceeded")
        ours, theirs = FORK.Pipe()
        stop = FORK.Event()
        process = FORK.Process(target=_work, args=(task, pickle.dumps(args), theirs, stop), daemon=True)
        process.start()
        theirs.close()
        try:
            while (found := _next(ours))[0] == "value":
                yield found[1]
            if found[0] == "error":
                raise found[1] if isinstance(found[1], gr.Error) else titled(found[1], "ZeroGPU worker error")
        except GeneratorExit:
            stop.set()
            while _next(ours)[0] == "value":
                pass
            raise
        finally:
            process.join(WAIT)
            ours.close()


def _next(pipe: Any) -> tuple[str, Any]:
    if not pipe.poll(WAIT):
        raise titled("GPU task aborted", "ZeroGPU worker error")
    found: tuple[str, Any] = pickle.loads(pipe.recv_bytes())
    return found


def titled(text: str, title: str) -> gr.Error:
    return gr.Error(text, title=title, print_exception=False)


def _work(task: Callable[..., Any], args: bytes, out: Any, stop: Any) -> None:
    """In the forked process."""

    def put(kind: str, value: Any = None) -> None:
        out.send_bytes(pickle.dumps((kind, value)))

    try:
        if inspect.isgeneratorfunction(task):
            values = task(*pickle.loads(args))
            for value in values:
                if stop.is_set():
                    values.close()
                    break
                put("value", value)
        else:
            put("value", task(*pickle.loads(args)))
    except Exception as error:
        put("error", error if isinstance(error, gr.Error) else type(error).__name__)
    else:
        put("end")
