"""Where and when a model runs: ZeroGPU's decorator on a Space that has it, and one queue for all events.

On ZeroGPU (the package `spaces`, which the Space brings) a decorated function runs in a forked process with a GPU:

1. Arguments, results and each value of a generator are pickled; what the function changes is lost.
2. Any error but gradio's own arrives as the name of its class. So ours travel as JobEvents, and are raised here again.
3. A generator that is closed here stops there after the value that it is at work on.
4. Models must have been put on the GPU before the app was launched.
"""

import inspect
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar, get_origin, get_type_hints

from melbo.app.jobs.event import JobEvent
from melbo.errors import MelboError

try:
    import spaces  # before CUDA starts
except ImportError:
    spaces = None

MODEL = "model"
"""Concurrency id of every event that runs a model: one at a time, first come, first served."""
MODEL_EVENT: dict[str, Any] = {"concurrency_id": MODEL, "concurrency_limit": 1}
"""Arguments of such an event."""
START = 15
"""Seconds in which the forked process starts and the weights reach its GPU."""
ABORTED = "GPU task aborted"
"""What `spaces` says when a run has taken longer than was asked for."""

Fn = TypeVar("Fn", bound=Callable[..., Any])


def zero_gpu(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a Space with ZeroGPU."""
    return environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def on_device(fn: Fn, seconds: int = 60) -> Fn:
    """`fn`, with a GPU for as long as its work of at most `seconds` takes where this is ZeroGPU; elsewhere `fn` itself.

    There its arguments are pickled, so it takes banks and names, never models. What returns a generator must say so
    in its annotation.

    Raises (the function that is returned):
        MelboError: what `fn` raises, or no GPU was free, or the visitor's time on them is used up.
    """
    if spaces is None or not zero_gpu():
        return fn
    gpu = spaces.GPU(duration=seconds + START)
    returned: Any = _streamed(gpu, fn) if _yields(fn) else _called(gpu, fn)
    return returned


def _called(gpu: Callable[..., Any], fn: Callable[..., Any]) -> Callable[..., Any]:
    def there(*arguments: Any) -> Any:
        try:
            return fn(*arguments)
        except MelboError as error:
            return JobEvent(error=error)

    run = gpu(there)

    def here(*arguments: Any) -> Any:
        with _quota_errors():
            return _opened(run(*arguments))

    return here


def _streamed(gpu: Callable[..., Any], fn: Callable[..., Any]) -> Callable[..., Generator[Any, None, None]]:
    def there(*arguments: Any) -> Iterator[Any]:
        try:
            yield from fn(*arguments)
        except MelboError as error:
            yield JobEvent(error=error)

    run = gpu(there)

    def here(*arguments: Any) -> Generator[Any, None, None]:
        with _quota_errors(), closing(run(*arguments)) as values:
            for value in values:
                yield _opened(value)

    return here


def _opened(value: Any) -> Any:
    if isinstance(value, JobEvent) and value.error is not None:
        raise value.error
    return value


@contextmanager
def _quota_errors() -> Iterator[None]:
    """What ZeroGPU itself says, such as that a visitor's time is used up, as one of our errors."""
    import gradio as gr

    try:
        yield
    except gr.Error as error:
        text = " ".join(str(error.message).split())
        if getattr(error, "title", "") == "ZeroGPU worker error" and text != ABORTED:  # a crash there: the log has it
            raise
        raise MelboError(f"ZeroGPU: {text}") from error


def _yields(fn: Callable[..., Any]) -> bool:
    inner = fn.func if isinstance(fn, partial) else fn
    return inspect.isgeneratorfunction(inner) or get_origin(get_type_hints(inner).get("return")) in (
        Generator,
        Iterator,
    )
