"""Checkers: is an answer right? Exact text, number, regular expression, multiple choice, or a function of the caller.

A task file only names a function, and the caller gives it: a file can never bring its own code.
Regular expressions are those of Python's `re`. The package `regex` searches them with a time limit, so that endless
backtracking blocks nothing. When it compiles a pattern it writes out counted repeats, with no limit, so patterns that
would grow large are refused first.
"""

import inspect
import math
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import regex

from melbo.errors import TaskError
from melbo.runs.digest import value_digest

Kind = Literal["exact", "number", "regex", "choice", "python"]
KINDS = get_args(Kind)
Functions = Mapping[str, Callable[[str], bool]]
"""By name. Each takes the answer's text and returns whether it is right."""
LONGEST = 20_000
"""Longest text of an answer that is checked, in characters."""
SECONDS = 2.0
"""CPU time that one search may take."""
MAX_SIZE = 200_000
"""Characters that a pattern may have with its repeats written out; compiling them takes seconds."""
_REPEAT = re.compile(r"([\w.\]]?)\{(\d{0,9}),?(\d{0,9})\}")
_NUMBER = re.compile(r"-?\d+(?:,\d{3})+(?:\.\d+)?(?![\d,])|-?\d*\.\d+|-?\d+")
_PLACE = r"(?:answer|option|choice)(?: is)?:?\s*[\(\[\*]*([{letters}])\b"


@dataclass(frozen=True)
class Check:
    """What a right answer is."""

    kind: Kind
    value: str
    """The right text, number, pattern or letter, or the function's name."""
    tolerance: float = 0.0
    """Of "number": largest difference."""
    options: str = "ABCD"
    """Of "choice": the letters to choose from."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TaskError(f"the check is {self.kind!r}; use one of {', '.join(KINDS)}.")
        if not self.value.strip():
            raise TaskError("the answer is empty; say what a right answer is.")
        if self.kind == "number" and parse_number(self.value) is None:
            raise TaskError(f"the answer {self.value[:60]!r} is not a finite number.")
        if not 0 <= self.tolerance < math.inf:
            raise TaskError(f"tolerance is {self.tolerance!r}; it must be a finite number from 0.")
        if self.kind == "choice" and (len(self.value) != 1 or self.value not in self.options):
            raise TaskError(f"the answer {self.value!r} is none of the options {', '.join(self.options)}.")
        if self.kind == "choice" and not (self.options.isalnum() and self.options.isupper()):
            raise TaskError(f"the options are {self.options!r}; use capital letters, such as ABCD.")
        if self.kind == "regex":
            check_pattern(self.value)

    def passes(self, text: str, functions: Functions | None = None) -> bool:
        """Whether an answer is right.

        Raises:
            TaskError: the function is not given, or does not return true or false; or a pattern takes too long.
            Exception: whatever a function raises; `grade` catches it.
        """
        text = text[:LONGEST]
        if self.kind == "exact":
            return _plain(text) == _plain(self.value)
        if self.kind == "number":
            found, wanted = last_number(text), parse_number(self.value)
            return found is not None and wanted is not None and abs(found - wanted) <= self.tolerance + 1e-9
        if self.kind == "regex":
            return search(self.value, text)
        if self.kind == "choice":
            return chosen_letter(text, self.options) == self.value
        function = (functions or {}).get(self.value)
        if function is None:
            raise TaskError(f"there is no checker function {self.value!r}; give it, or change the check.")
        right = function(text)
        if not isinstance(right, bool):
            raise TaskError(f"the checker {self.value!r} returned {type(right).__name__}; it must return a bool.")
        return right


def _plain(text: str) -> str:
    """Lower case, single spaces, without punctuation at the ends."""
    return " ".join(text.casefold().split()).strip(" .!?\"'`*")


def parse_number(text: str) -> float | None:
    """A text that is one finite number, "1,234.5" too; else None."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def last_number(text: str) -> float | None:
    """The last number in a text; commas may separate thousands."""
    found = _NUMBER.findall(text)
    return parse_number(found[-1]) if found else None


def chosen_letter(text: str, options: str) -> str | None:
    """The option that an answer names: after the last "answer", "option" or "choice", else at the start, else the only
    letter that stands alone; None if that does not settle it.
    """
    letters = re.escape(options)
    named = re.findall(_PLACE.format(letters=letters), text, re.IGNORECASE)
    if named:
        return str(named[-1]).upper()
    first = re.match(rf"\s*[\(\[\*]*([{letters}])(?:[\)\]\*.:,]|\s*$)", text)
    if first:
        return first.group(1)
    alone = set(re.findall(rf"(?<![\w'])([{letters}])(?![\w'])", text))
    return alone.pop() if len(alone) == 1 else None


@dataclass(frozen=True)
class Grade:
    """The verdict on one answer."""

    right: bool
    error: str | None = None
    """What the checker raised; the answer then counts as wrong."""


def grade(checks: Sequence[Check], answers: Sequence[str], functions: Functions | None = None) -> list[Grade]:
    """The verdict on each answer. A checker that raises affects its own answer only.

    A pattern that took too long once is not searched again: all later answers that it should check count as wrong.
    """
    slow: dict[str, Grade] = {}
    found = []
    for check, answer in zip(checks, answers, strict=True):
        verdict = slow.get(check.value) if check.kind == "regex" else None
        if verdict is None:
            try:
                verdict = Grade(check.passes(answer, functions))
            except (Exception, SystemExit) as error:  # foreign code may raise anything
                verdict = Grade(False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
                if check.kind == "regex":
                    slow[check.value] = verdict
        found.append(verdict)
    return found


def functions_digest(functions: Mapping[str, Callable[[str], bool]] | None) -> str:
    """Of what checker functions do: of the files that they are from, or else of their code."""
    found = {}
    for name, function in (functions or {}).items():
        code = getattr(function, "__code__", None)
        file = Path(getattr(code, "co_filename", ""))
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        found[name] = [text or repr(type(function)), getattr(code, "co_code", b"").hex()]
    return value_digest(found)


def load_functions(path: str | Path) -> dict[str, Callable[[str], bool]]:
    """Run a Python file and return its public functions by name. For trusted files only: this runs them.

    Raises:
        TaskError: the file is missing, raises, or defines no public function.
    """
    path = Path(path)
    if not path.is_file():
        raise TaskError(f"there is no file {path} with checker functions.")
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise TaskError(f"the checkers in {path} cannot be loaded: {type(error).__name__}: {error}") from error
    found: dict[str, Callable[[str], bool]] = {
        n: f for n, f in names.items() if inspect.isfunction(f) and not n.startswith("_")
    }
    if not found:
        raise TaskError(f"{path} defines no function; write def name(answer): return True or False.")
    return found


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
