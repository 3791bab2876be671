"""Accuracy with a bootstrap interval, and how many answers show their steps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from melbo.elicitation.tasks.checks import Functions, Grade, grade
from melbo.elicitation.tasks.load import Task
from melbo.errors import TaskError
from melbo.runs.parse import dump

RESAMPLES = 10_000
_EQUATION = re.compile(r"\d\s*[-+*/×÷]\s*\d+(?:\s*[-+*/×÷]\s*\d+)*\s*=\s*-?\d")
_STEP_WORDS = re.compile(
    r"(?:^|[.!?:;\n]\s*)(?:first|second|third|next|then|now|finally|therefore|so|step \d+|\d+\.)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Score:
    """How many answers are right."""

    n: int
    right: int
    low: float
    """95% interval of the accuracy, as the next."""
    high: float
    steps: float
    """Share of answers that show reasoning steps."""
    failed: int
    """Answers whose checker raised; they count as wrong. Every sample of a task counts here."""
    errors: tuple[str, ...] = ()
    """What checkers raised, up to five different errors."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.n

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields and the accuracy."""
        return {"accuracy": self.accuracy, **dump(self)}


def bootstrap(right: int, n: int, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the share right / n (Efron 1979).

    Drawing n answers with replacement and counting the right ones is one binomial draw. If all answers are right or all
    are wrong, every resample is the same, so the exact (Clopper-Pearson) bound replaces the one on that side.

    Raises:
        TaskError: there is no answer.
    """
    if not 0 <= right <= n or n < 1:
        raise TaskError(f"{right} right of {n} answers cannot be scored; give at least one answer.")
    tail = (1 - level) / 2
    if right == 0:
        return 0.0, float(1 - tail ** (1 / n))
    if right == n:
        return float(tail ** (1 / n)), 1.0
    shares = np.random.default_rng(seed).binomial(n, right / n, RESAMPLES) / n
    low, high = np.quantile(shares, (tail, 1 - tail))
    return float(low), float(high)


def score(tasks: Sequence[Task], answers: Sequence[str], functions: Functions | None = None) -> Score:
    """Score one answer for each task.

    Raises:
        TaskError: there is no answer.
    """
    grades = grade([t.check for t in tasks], answers, functions)
    return tally(answers, sum(g.right for g in grades), grades)


def tally(answers: Sequence[str], right: int, grades: Sequence[Grade]) -> Score:
    """The score of one answer per task, `right` of them right; `grades` are those of all samples that were tried.

    Raises:
        TaskError: there is no answer.
    """
    interval = bootstrap(right, len(answers))
    errors = [g.error for g in grades if g.error is not None]
    steps = sum(shows_steps(a) for a in answers) / len(answers)
    return Score(len(answers), right, *interval, steps, len(errors), tuple(dict.fromkeys(errors))[:5])


def shows_steps(text: str) -> bool:
    """Whether an answer reasons in steps: two worked equations ("3 + 4 = 7"), or three sentences that begin with words
    such as "first", "next", "then". This is a heuristic; repeating the question's equation does not count.
    """
    return len(_EQUATION.findall(text)) >= 2 or len(_STEP_WORDS.findall(text)) >= 3
