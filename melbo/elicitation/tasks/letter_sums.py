"""Chain of thought: does an answer show its steps? And sums like those that the original post measured it on."""

from __future__ import annotations

import random

from melbo.elicitation.tasks.checks import Check
from melbo.elicitation.tasks.load import Task, TaskSet, placed
from melbo.prompts import chat

LETTERS = "abcdef"


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
