"""Failures as one short line in place: no stack trace, no toast."""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from melbo.app.render import render
from melbo.errors import MelboError

UNEXPECTED = "Something went wrong here. Nothing is lost; try again."


def notice(elem_id: str | None = None) -> gr.HTML:
    """The place where a tab says what went wrong; empty and without height otherwise."""
    return gr.HTML("", elem_id=elem_id, elem_classes="notice", padding=False)


def alert(text: str) -> str:
    """A failure, escaped, read out by screen readers at once."""
    return render("notice", kind="alert", role="alert", text=text) if text else ""


def hint(text: str) -> str:
    """Something worth knowing, escaped."""
    return render("notice", kind="hint", role="status", text=text) if text else ""


def error_message(error: Exception) -> str:
    """What a visitor reads about an error; one that nobody foresaw goes to the log instead."""
    if isinstance(error, MelboError):
        text = " ".join(str(error).split())
        return text[:1].upper() + text[1:]
    logging.getLogger(__name__).error("a request failed", exc_info=error)
    return UNEXPECTED


def with_notice(fn: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """An event's function whose outputs are [notice, *the function's own].

    Args:
        fn: a function or generator function that gives `outputs` values (a tuple, or the value itself where it is 1).
            It may give `notice` a text of its own by giving one value more, in front (HTML made by `hint`).
        outputs: number of its own outputs.
    """

    def filled(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, tuple) else (value,) if outputs else ()
        return values if len(values) == outputs + 1 else ("", *values)

    def failed(error: Exception) -> tuple[Any, ...]:
        return (alert(error_message(error)), *(gr.skip() for _ in range(outputs)))

    inner = fn.func if isinstance(fn, functools.partial) else fn
    if inspect.isgeneratorfunction(inner):

        @functools.wraps(fn, assigned=[a for a in functools.WRAPPER_ASSIGNMENTS if hasattr(fn, a)])
        def stream(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:
            try:
                with closing(fn(*args, **kwargs)) as values:
                    for value in values:
                        yield filled(value)
            except Exception as error:
                yield failed(error)

        return stream

    @functools.wraps(fn, assigned=[a for a in functools.WRAPPER_ASSIGNMENTS if hasattr(fn, a)])
    def call(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        try:
            return filled(fn(*args, **kwargs))
        except Exception as error:
            return failed(error)

    return call
