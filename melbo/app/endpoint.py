"""One action of the public API: its types and its whole docstring, as gradio_client and MCP show them."""

import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import gradio as gr
from gradio.events import api

from melbo.app.jobs.event import JobEvent, JobEvents, updates
from melbo.app.notice import error_message

V = TypeVar("V")
R = TypeVar("R")
S = TypeVar("S")
Run = Callable[..., Any]
"""Work of an action as `Context.on_device` gives it: on a GPU where this is ZeroGPU."""


def endpoint(fn: Callable[..., Any], *given: Any, **event: Any) -> None:
    """Publish `fn` under its name, as `action` makes it; call inside the Blocks."""
    published = action(fn, *given)
    api(published, api_name=published.__name__, api_description=inspect.getdoc(fn), **event)


def action(fn: Callable[..., Any], *given: Any) -> Callable[..., Any]:
    """`fn`, a function or generator function whose first arguments are `given`, as a client calls it: with the others,
    and a failure reaches the client as one line.

    gradio reads a return annotation as it stands: a text (as all are here) or an iterator would be shown as Any. So it
    is given the type that `fn` returns or yields.
    """

    @functools.wraps(fn)
    def stream(*values: Any, **named: Any) -> Iterator[Any]:
        with _plain_errors():
            yield from fn(*given, *values, **named)

    @functools.wraps(fn)
    def call(*values: Any, **named: Any) -> Any:
        with _plain_errors():
            return fn(*given, *values, **named)

    returned = get_type_hints(fn).get("return", Any)
    if get_origin(returned) in (Iterator, Generator):
        returned = get_args(returned)[0]
    published: Any = stream if inspect.isgeneratorfunction(fn) else call
    parameters = list(inspect.signature(fn).parameters.values())[len(given) :]
    published.__signature__ = inspect.Signature(parameters, return_annotation=returned)
    return published


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise gr.Error(error_message(error), print_exception=False) from error


def states(events: JobEvents[V, R], start: S, change: Callable[[S, JobEvent[V, R]], S]) -> Generator[S, None, None]:
    """What a client sees of long work: `start`, then as each event changes it, and again where nothing is new."""
    with closing(updates(events)) as parts:
        for event in parts:
            start = change(start, event)
            yield start
