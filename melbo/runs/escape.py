"""Foreign text in Markdown: labels, notes, prompts and completions show as text, whatever they hold."""

import math
import re
from typing import Any

_SPECIAL = re.compile(r"[\\`*_\[\]#|~$^]|(?<=:)/|(?<=www)\.", re.IGNORECASE)
"""Markdown's punctuation, and what makes bare links."""
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, marks that turn the direction of text around, and halves of surrogate pairs."""


def inline(value: Any, limit: int = 120) -> str:
    """A text on one line, at most `limit` characters of it, with every mark of Markdown and HTML escaped.

    Fit for headings, table cells and paragraphs; "" for what is no text.
    """
    if not isinstance(value, str):
        return ""
    text = _cut(" ".join(_HIDDEN.sub("", value).split()), limit)
    text = _SPECIAL.sub(r"\\\g<0>", text)
    text = re.sub(r"^(\d+)([.)])", r"\1\\\2", text)  # a numbered list
    text = re.sub(r"^[-+=]|[-=](?=[-=])|(?<=[-=])[-=]", r"\\\g<0>", text)  # lists, rules, underlined headings
    return "".join(_HTML.get(c, c) for c in text)


def quote(value: Any, limit: int = 600) -> str:
    """A text as a block quote, line by line, at most `limit` characters of it, escaped as `inline` does."""
    if not isinstance(value, str):
        return ""
    lines = [inline(line, limit) for line in _cut(value.strip(), limit).splitlines()]
    return "\n".join(f"> {line}".rstrip() for line in lines) or "> (empty)"


def number(value: Any) -> float | None:
    """A finite number, or None for all else; True is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def listed(value: Any) -> list[Any]:
    """A list or tuple as a list; an empty one for all else."""
    return list(value) if isinstance(value, list | tuple) else []


def shown(value: Any) -> str:
    """A number with three digits, or "-"."""
    found = number(value)
    return "-" if found is None else f"{found:.3g}"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
