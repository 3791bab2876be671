"""Which vector, at which scale, solves the most training tasks? Successive halving over a whole bank.

1. Every vector at both signs of every scale answers the first few training tasks.
2. The best 1 / eta of them answer eta times as many tasks, and so on, until one is left or the tasks are used up.
3. Of those left, the one with the highest share of right answers wins; in a tie, the one with the smaller scale.
Source: Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943. Test tasks are not used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from melbo.bank.vector_bank import VectorBank
from melbo.elicitation.cached_generation import Answerer
from melbo.elicitation.cost import Compute
from melbo.elicitation.tasks.checks import Functions, grade
from melbo.elicitation.tasks.load import Task
from melbo.runs.parse import dump
from melbo.runs.settings import LARGEST, Scales, Settings, Size


@dataclass(frozen=True)
class SearchConfig(Settings):
    """How the budget is divided."""

    scales: Scales = (0.75, 1.0, 1.25)
    """Sizes above 0 and up to 1000; both signs are tried."""
    first_tasks: Size = 4
    """Tasks that every candidate answers first."""
    eta: Annotated[int, Field(ge=2, le=LARGEST)] = 4
    """Each round keeps one candidate in eta and asks eta times as much."""


@dataclass(frozen=True)
class Candidate:
    """One vector at one scale."""

    vector: int
    scale: float
    right: int = 0
    """Training tasks that it solved, of those tried."""
    tried: int = 0

    @property
    def share(self) -> float:
        """Share of right answers."""
        return self.right / max(1, self.tried)


@dataclass(frozen=True)
class Search:
    """What a search found."""

    best: Candidate
    finalists: tuple[Candidate, ...]
    """The candidates of the last round, best first."""
    rounds: tuple[tuple[int, int], ...]
    """(candidates, tasks each has seen after it) of each round."""
    compute: Compute
    """Cost of the answers, without the bank's own."""
    failed: int
    """Answers whose checker raised."""
    errors: tuple[str, ...] = ()
    """What checkers raised, up to five different errors."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, with the ten best finalists."""
        return dump(self) | {"finalists": dump(self.finalists[:10])}


def plan(candidates: int, tasks: int, config: SearchConfig) -> tuple[tuple[int, int], ...]:
    """(candidates, tasks each has seen after it) of each round."""
    rounds: list[tuple[int, int]] = []
    seen = min(tasks, config.first_tasks)
    while True:
        rounds.append((candidates, seen))
        if candidates == 1 or seen == tasks:
            return tuple(rounds)
        candidates = math.ceil(candidates / config.eta)
        seen = min(tasks, seen * config.eta)


def planned_answers(rounds: Sequence[tuple[int, int]]) -> int:
    """Number of answers that the rounds of a plan need."""
    before = [0, *(seen for _, seen in rounds)]
    return sum(n * (seen - old) for (n, seen), old in zip(rounds, before, strict=False))


def search(
    answerer: Answerer,
    bank: VectorBank,
    tasks: Sequence[Task],
    config: SearchConfig | None = None,
    functions: Functions | None = None,
    name: str = "vectors",
) -> Search:
    """Find a bank's best vector and scale on training tasks.

    Args:
        name: of its runs in the answerer's checkpoint.
    """
    config = config or SearchConfig()
    bank.check_fits(answerer.loaded)
    scales = [sign * s for s in sorted(set(config.scales)) for sign in (1.0, -1.0)]
    alive = [Candidate(i, s) for s in scales for i in range(len(bank))]
    rounds = plan(len(alive), len(tasks), config)
    cost, before = Compute(), 0
    errors: list[str] = []
    for number, (kept, seen) in enumerate(rounds):
        alive = alive[:kept]
        part = tasks[before:seen]
        pairs = [(c, t) for c in alive for t in part]
        vectors = torch.stack([bank.vector(c.vector, c.scale) for c, _ in pairs])
        prompts = [t.messages for _, t in pairs]
        found = answerer.answer(f"{name}, round {number + 1}", prompts, vectors, bank.layer)
        grades = grade([t.check for _, t in pairs], found.texts, functions)
        errors += [g.error for g in grades if g.error is not None]
        cost += found.compute
        alive = _ranked(alive, [g.right for g in grades], len(part))
        before = seen
    return Search(alive[0], tuple(alive), rounds, cost, len(errors), tuple(dict.fromkeys(errors))[:5])


def _ranked(candidates: Sequence[Candidate], right: Sequence[bool], tasks: int) -> list[Candidate]:
    """The candidates with these new verdicts added, best first; each has `tasks` verdicts in a row."""
    found = []
    for i, c in enumerate(candidates):
        own = sum(right[i * tasks : (i + 1) * tasks])
        found.append(Candidate(c.vector, c.scale, c.right + own, c.tried + tasks))
    return sorted(found, key=lambda c: (-c.share, abs(c.scale), c.vector, -c.scale))
