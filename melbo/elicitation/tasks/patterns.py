"""Regular expressions of task files, searched with a time limit: endless backtracking blocks nothing.

Patterns are those of Python's `re`. The package `regex` does the search, because it takes a time limit. When it
compiles a pattern it writes out counted repeats, with no limit, so patterns that would grow large are refused first.
"""

from __future__ import annotations

import re

import regex

from melbo.errors import TaskError

SECONDS = 2.0
"""CPU time that one search may take."""
MAX_SIZE = 200_000
"""Characters that a pattern may have with its repeats written out; compiling them takes seconds."""
_REPEAT = re.compile(r"([\w.\]]?)\{(\d{0,9}),?(\d{0,9})\}")


def check_pattern(pattern: str) -> None:
    """Raise TaskError unless the pattern is a regular expression that is not too large."""
    try:
        re.compile(pattern)
        size = _size(pattern)
        if size <= MAX_SIZE:
            regex.compile(pattern)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise TaskError(f"the pattern {pattern[:60]!r} is not a regular expression: {error}.") from error
    if size > MAX_SIZE:
        raise TaskError(
            f"the pattern {pattern[:60]!r} has about {size} characters with its repeats written out; at most "
            f"{MAX_SIZE} are allowed, use smaller counts in braces."
        )


def _size(pattern: str) -> int:
    """The most characters of a pattern with its repeats written out: as if every repeated group held all the others."""
    single, groups = 1, 1
    for before, low, high in _REPEAT.findall(pattern):
        count = max(int(low or 1), int(high or 1))
        if before:  # of one character, or of one class of them
            single = max(single, count)
        else:
            groups *= max(1, count)
    return len(pattern) * single * groups


def search(pattern: str, text: str) -> bool:
    """Whether a pattern that `check_pattern` accepts matches somewhere in the text.

    Raises:
        TaskError: the search takes more than SECONDS.
    """
    try:
        return regex.search(pattern, text, timeout=SECONDS) is not None
    except TimeoutError as error:
        raise TaskError(
            f"the pattern {pattern[:60]!r} took more than {SECONDS:g} s; it backtracks, write another."
        ) from error
