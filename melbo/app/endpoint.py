"""One action of the public API: its types and its whole docstring, as gradio_client and MCP show them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import gradio as gr
from gradio.events import api

from melbo.app.jobs.event import JobEvent, JobEvents, updates
from melbo.app.notice import error_message

Fn = TypeVar("Fn", bound=Callable[..., Any])
V = TypeVar("V")
R = TypeVar("R")
S = TypeVar("S")


def endpoint(fn: Callable[..., Any], name: str, **event: Any) -> None:
    """Publish `fn` as /name; call inside the Blocks.

    gradio reads a return annotation as it stands: a text (as all are here) or an iterator would be shown as Any. So it
    is given the type that `fn` returns or yields.
    """
    returned = get_type_hints(fn).get("return", Any)
    if get_origin(returned) in (Iterator, Generator):
        returned = get_args(returned)[0]
    signature = inspect.signature(fn).replace(return_annotation=returned)
    setattr(fn, "__signature__", signature)  # noqa: B010  mypy knows no such attribute
    fn.__name__ = name  # what MCP calls the tool
    api(fn, api_name=name, api_description=inspect.getdoc(fn), **event)


def plain_errors(fn: Fn) -> Fn:
    """The same function or generator function, whose failure reaches the client as one line."""

    @functools.wraps(fn)
    def stream(*values: Any, **named: Any) -> Iterator[Any]:
        try:
            yield from fn(*values, **named)
        except Exception as error:
            raise gr.Error(error_message(error), print_exception=False) from error

    @functools.wraps(fn)
    def call(*values: Any, **named: Any) -> Any:
        try:
            return fn(*values, **named)
        except Exception as error:
            raise gr.Error(error_message(error), print_exception=False) from error

    wrapped: Any = stream if inspect.isgeneratorfunction(fn) else call
    return cast(Fn, wrapped)


def states(events: JobEvents[V, R], start: S, change: Callable[[S, JobEvent[V, R]], S]) -> Generator[S, None, None]:
    """What a client sees of long work: `start`, then as each event changes it, and again where nothing is new."""
    with closing(updates(events)) as parts:
        for event in parts:
            start = change(start, event)
            yield start
