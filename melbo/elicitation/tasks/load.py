"""Tasks: prompts with checkers, in a training and a test split without common questions.

A task file is JSONL, with one task on each line; docs/elicit.md gives the keys.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from melbo.elicitation.tasks.checks import Check
from melbo.errors import TaskError
from melbo.prompts import DEFAULT_SYSTEM, Message, chat

Split = Literal["train", "test"]
T = TypeVar("T")
MAX_BYTES = 64 * 2**20
LETTERS = "abcdef"
"""Of the sums."""
_KEYS = {"prompt", "system", "messages", "check", "answer", "tolerance", "options", "split", "solution"}


@dataclass(frozen=True)
class Task:
    """A conversation that waits for an answer, and how to check that answer."""

    messages: tuple[Message, ...]
    check: Check
    solution: str = ""
    """A right answer in full, for few-shot prompts and fine-tuning."""
    place: str = ""
    """Where it comes from: "line 3"."""

    @property
    def question(self) -> str:
        """The last message's text, in lower case and with single spaces: two tasks with the same text are the same."""
        return " ".join(self.messages[-1]["content"].casefold().split())


@dataclass(frozen=True)
class TaskSet:
    """Tasks to choose on and other tasks to report on.

    Raises:
        TaskError: a split is empty, or a question is in both.
    """

    train: tuple[Task, ...]
    test: tuple[Task, ...]

    def __post_init__(self) -> None:
        for name in get_args(Split):
            if not getattr(self, name):
                raise TaskError(f"there is no {name} task; each split needs at least one.")
        known = {t.question: t for t in self.train}
        for task in self.test:
            if task.question in known:
                raise TaskError(
                    f"the test prompt of {task.place or 'a task'} is also a training prompt "
                    f"({known[task.question].place or 'another task'}): {task.question[:60]!r}; remove one of them."
                )

    def cut(self, n_train: int | None = None, n_test: int | None = None) -> TaskSet:
        """The first tasks of each split."""
        return TaskSet(self.train[:n_train], self.test[:n_test])


def load_tasks(path: str | Path, system: str = DEFAULT_SYSTEM, test_share: float = 0.5, seed: int = 0) -> TaskSet:
    """Read a task file.

    Args:
        system: system message for tasks that do not name one; "" for none.
        test_share: if no line names its split, this share of the questions goes into the test, by a fixed shuffle.
        seed: of that shuffle.

    Raises:
        TaskError: the file cannot be read, a line is malformed (with its number and the reason), only some lines name
            their split, or a prompt is in both splits.
    """
    rows = _read(Path(path), lambda place, value: _task(place, value, system))
    named = [split for _, split in rows if split is not None]
    if not rows:
        raise TaskError(f"{path} holds no task; write one JSON object on each line.")
    if named and len(named) < len(rows):
        first = next(task.place for task, split in rows if split is None)
        raise TaskError(f"{path}, {first}: no split, but other lines have one; name it in all lines or in none.")
    if not named:
        return _divide([task for task, _ in rows], test_share, seed)
    return TaskSet(tuple(t for t, s in rows if s == "train"), tuple(t for t, s in rows if s == "test"))


def _divide(tasks: Sequence[Task], test_share: float, seed: int) -> TaskSet:
    """Equal questions stay together."""
    if not 0 < test_share < 1:
        raise TaskError(f"the test share is {test_share}; it must lie between 0 and 1.")
    questions = sorted({t.question for t in tasks})
    if len(questions) < 2:
        raise TaskError("all tasks ask the same question; give at least two different ones, one for each split.")
    random.Random(seed).shuffle(questions)
    tested = set(questions[: min(len(questions) - 1, max(1, round(test_share * len(questions))))])
    return TaskSet(tuple(t for t in tasks if t.question not in tested), tuple(t for t in tasks if t.question in tested))


def _lines(path: Path) -> list[tuple[int, Any]]:
    """Line numbers and JSON values; empty lines are left out."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TaskError(f"{path} has more than {MAX_BYTES // 2**20} MiB; split it.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot read the tasks in {path}: {error}.") from error
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
                json.dumps(value, ensure_ascii=False).encode()
                found.append((number, value))
            except UnicodeEncodeError as error:
                raise TaskError(f"line {number} holds half a character (a lone surrogate); remove it.") from error
            except (ValueError, RecursionError) as error:
                raise TaskError(f"line {number} is not JSON: {error}.") from error
    return found


def _read(path: Path, read: Callable[[str, dict[str, Any]], T]) -> list[T]:
    """What `read` makes of the place and the object of each line; its errors name the line."""
    found = []
    for number, value in _lines(path):
        try:
            if not isinstance(value, dict):
                raise TaskError(f"a JSON object is needed, not {type(value).__name__}.")
            found.append(read(f"line {number}", value))
        except TaskError as error:
            raise TaskError(f"line {number}: {error}") from error
    return found


def _task(place: str, value: dict[str, Any], system: str) -> tuple[Task, Split | None]:
    """One line's task and split."""
    if unknown := sorted(set(value) - _KEYS):
        raise TaskError(f"unknown key {unknown[0]!r}; the keys are {', '.join(sorted(_KEYS))}.")
    split = value.get("split")
    if split is not None and split not in get_args(Split):
        raise TaskError(f'split is {split!r}; use "train" or "test".')
    check = _check(value)
    solution = _text(value, "solution", "")
    if not solution and check.kind in ("exact", "number", "choice"):
        solution = check.value
    return Task(_messages(value, system), check, solution, place), split


def load_chats(path: str | Path, system: str = DEFAULT_SYSTEM) -> list[list[Message]]:
    """Conversations without checkers: JSONL with prompt (and system) or messages, as in a task file.

    Raises:
        TaskError: the file cannot be read or is empty, or a line is malformed.
    """
    found = _read(Path(path), lambda _, value: list(_messages(value, system)))
    if not found:
        raise TaskError(f"{path} holds no chat; write one JSON object on each line.")
    return found


def _text(value: Mapping[str, Any], key: str, default: str) -> str:
    text = value.get(key, default)
    if not isinstance(text, str):
        raise TaskError(f"{key} is {type(text).__name__}; write a text.")
    return text


def _messages(value: Mapping[str, Any], system: str) -> tuple[Message, ...]:
    if ("prompt" in value) == ("messages" in value):
        raise TaskError("give either prompt or messages.")
    if "prompt" in value:
        messages = chat(_text(value, "prompt", ""), _text(value, "system", system))
    else:
        messages = value["messages"]
        keys = {"role", "content"}
        if not isinstance(messages, list) or not all(
            isinstance(m, dict) and set(m) == keys and all(isinstance(t, str) for t in m.values()) for m in messages
        ):
            raise TaskError('messages must be a list of {"role": text, "content": text}.')
        if not messages or messages[-1]["role"] != "user":
            raise TaskError("the last message must be the user's.")
    if not messages[-1]["content"].strip():
        raise TaskError("the prompt is empty; write at least one character.")
    return tuple(dict(m) for m in messages)


def _check(value: Mapping[str, Any]) -> Check:
    if "check" not in value or "answer" not in value:
        raise TaskError("check and answer are needed.")
    answer, tolerance = value["answer"], value.get("tolerance", 0.0)
    options = value.get("options", "ABCD")
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise TaskError(f"answer is {type(answer).__name__}; write a text or a number.")
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        raise TaskError(f"tolerance is {tolerance!r}; write a number.")
    if isinstance(options, list) and all(isinstance(o, str) and len(o) == 1 for o in options):
        options = "".join(options)
    if not isinstance(options, str):
        raise TaskError("options must be letters, such as ABCD.")
    try:
        largest = float(tolerance)
    except OverflowError as error:
        raise TaskError("tolerance is too large for a number; write a smaller one.") from error
    return Check(value["check"], str(answer), largest, options)


def placed(tasks: Sequence[Task], place: str) -> tuple[Task, ...]:
    """The tasks, each with its place: "corpus 1", "corpus 2", ..."""
    return tuple(replace(t, place=f"{place} {i}") for i, t in enumerate(tasks, start=1))


def letter_sums(n_train: int, n_test: int, seed: int = 0, terms: int = 3) -> TaskSet:
    """Tasks of the form "a=6+2, b=3+7, c=1+5. What is a+b+c?", after the sums of the original post's case study.

    No question is in both splits.

    Args:
        terms: number of letters in a question, 2 to 6.
    """
    rng = random.Random(seed)
    terms = min(max(terms, 2), len(LETTERS))
    found: dict[str, Task] = {}
    while len(found) < n_train + n_test:
        pairs = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(terms)]
        given = ", ".join(f"{x}={a}+{b}" for x, (a, b) in zip(LETTERS, pairs, strict=False))
        text = f"{given}. What is {'+'.join(LETTERS[:terms])}?"
        steps = " ".join(f"{x} = {a} + {b} = {a + b}." for x, (a, b) in zip(LETTERS, pairs, strict=False))
        total = sum(a + b for a, b in pairs)
        parts = " + ".join(str(a + b) for a, b in pairs)
        check = Check("number", str(total))
        found.setdefault(text, Task(tuple(chat(text)), check, f"{steps} {parts} = {total}."))
    tasks = placed(list(found.values()), "letter sum")
    return TaskSet(tasks[:n_train], tasks[n_train:])
