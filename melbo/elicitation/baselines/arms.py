"""The other ways to elicit: prompting, worked examples, many samples, fine-tuning.

Choices are made on training tasks and reported on test tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from melbo.elicitation.baselines.lora import LoraConfig, fine_tune
from melbo.elicitation.baselines.prompting import ELICITING, Asking, few_shot
from melbo.elicitation.cached_generation import Answerer
from melbo.elicitation.cost import Compute
from melbo.elicitation.score import Score, score, tally
from melbo.elicitation.tasks.checks import Functions, grade
from melbo.elicitation.tasks.load import Task, TaskSet
from melbo.prompts import Message


@dataclass(frozen=True)
class Arm:
    """One way to elicit, on the test tasks."""

    score: Score
    finding: Compute
    """What choosing or training it cost."""
    using: Compute
    """What answering the test tasks cost."""
    chosen: str = ""
    """What was chosen on the training tasks."""
    answers: tuple[str, ...] = ()
    """The answers to the test tasks; of many samples, a right one if there is one."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, with up to five example answers."""
        return {
            "score": self.score.to_dict(),
            "chosen": self.chosen,
            "finding": self.finding.to_dict(),
            "using": self.using.to_dict(),
            "examples": list(self.answers[:5]),
        }


def asked(
    answerer: Answerer,
    name: str,
    tasks: Sequence[Task],
    prompts: Sequence[Sequence[Message]],
    functions: Functions | None = None,
    finding: Compute | None = None,
    chosen: str = "",
    **options: Any,
) -> Arm:
    """The arm that answers `prompts`, one for each task; `options` are those of `Answerer.answer`."""
    found = answerer.answer(name, prompts, **options)
    result = score(tasks, found.texts, functions)
    return Arm(result, finding or Compute(), found.compute, chosen, tuple(found.texts))


def prompting(
    answerer: Answerer, tasks: TaskSet, n_train: int, functions: Functions | None, ways: Sequence[Asking] = ELICITING
) -> Arm:
    """The elicitation prompt that solves the most training tasks."""
    train = tasks.train[:n_train]
    prompts = [way.apply(t.messages) for way in ways for t in train]
    found = answerer.answer("prompting, training", prompts)
    right = [g.right for g in grade([t.check for _ in ways for t in train], found.texts, functions)]
    counts = [sum(right[i * len(train) : (i + 1) * len(train)]) for i in range(len(ways))]
    best = ways[max(range(len(ways)), key=counts.__getitem__)]
    prompts = [best.apply(t.messages) for t in tasks.test]
    return asked(answerer, "prompting", tasks.test, prompts, functions, found.compute, f"{best.text!r} as {best.place}")


def worked_examples(answerer: Answerer, tasks: TaskSet, shots: int, functions: Functions | None) -> Arm:
    """The first training tasks with their solutions as earlier turns."""
    examples = tasks.train[:shots]
    prompts = [few_shot(t.messages, examples) for t in tasks.test]
    return asked(answerer, "few shot", tasks.test, prompts, functions, chosen=f"{len(examples)} examples")


def best_of_n(answerer: Answerer, tasks: TaskSet, samples: int, temperature: float, functions: Functions | None) -> Arm:
    """A task counts as solved if any of n samples is right. An upper bound: the checker itself picks the sample."""
    sampling = replace(answerer.sampling, temperature=temperature)
    rows = [t for t in tasks.test for _ in range(samples)]
    found = answerer.answer("best of n", [t.messages for t in rows], sampling=sampling)
    grades = grade([t.check for t in rows], found.texts, functions)
    best = []
    for start in range(0, len(rows), samples):
        own = range(start, start + samples)
        best.append(next((i for i in own if grades[i].right), start))
    texts = [found.texts[i] for i in best]
    result = tally(texts, sum(grades[i].right for i in best), grades)
    return Arm(result, Compute(), found.compute, f"any of {samples} samples at {temperature:g}", tuple(texts))


def fine_tuned(
    answerer: Answerer, tasks: TaskSet, n_train: int, config: LoraConfig, functions: Functions | None
) -> Arm:
    """LoRA on training tasks with solutions."""
    train = tasks.train[:n_train]
    tuned, cost = fine_tune(answerer.loaded, train, config)
    prompts = [t.messages for t in tasks.test]
    chosen = f"{config.steps} steps on {len(train)} solutions"
    return asked(answerer, "lora", tasks.test, prompts, functions, cost, chosen, loaded=tuned)
