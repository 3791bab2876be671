"""One action of the public API: its types and its whole docstring, as gradio_client and MCP show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, get_args, get_origin, get_type_hints

import gradio as gr
from gradio.events import api

from melbo.app.notice import error_message


def endpoint(fn: Callable[..., Any], name: str, **event: Any) -> None:
    """Publish `fn` as /name; call inside the Blocks.

    gradio reads a return annotation as it stands: a text (as all are here) or an iterator would be told as Any. So it
    is given the type that `fn` returns or yields.
    """
    returned = get_type_hints(fn).get("return", Any)
    if get_origin(returned) in (Iterator, Generator):
        returned = get_args(returned)[0]
    signature = inspect.signature(fn).replace(return_annotation=returned)
    setattr(fn, "__signature__", signature)  # noqa: B010  mypy knows no such attribute
    fn.__name__ = name  # what MCP calls the tool
    api(fn, api_name=name, api_description=inspect.getdoc(fn), **event)


@contextmanager
def plain_errors() -> Iterator[None]:
    """A failure reaches the client as one line."""
    try:
        yield
    except Exception as error:
        raise gr.Error(error_message(error), print_exception=False) from error
