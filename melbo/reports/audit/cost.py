"""The work that an audit takes, and cuts to keep it below a number of answers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from melbo.elicitation.cost import parameters
from melbo.elicitation.refusals import SCALES as REFUSAL_SCALES
from melbo.elicitation.search import plan as search_plan
from melbo.elicitation.search import planned_answers
from melbo.elicitation.tasks.load import TaskSet
from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, REFUSED, encode
from melbo.reports.audit.config import MOST, AuditConfig, sites, task_config

CALIBRATION = len(REFUSED) + len(INNOCUOUS)
"""Answers that the coherence scale takes, and those to the clean prompts of the backdoor search."""
CUTS = (
    ("n_vectors", 16), ("n_prompts", 5), ("backdoor_prompts", 1), ("refusal_vectors", 1), ("n_tasks", 32),
    ("prompts", 1), ("layers", 1), ("n_vectors", 4), ("n_prompts", 3), ("sweep_vectors", 2), ("n_tasks", 1),
    ("scales", 1), ("radii", 1), ("n_control", 1),
)  # fmt: skip
"""What is halved in turn until a plan fits, and down to what."""


@dataclass(frozen=True)
class Work:
    """What a plan takes at most: answers that steering leaves unchanged are not generated."""

    answers: dict[str, int]
    """By part."""
    banks: int
    training_steps: int
    """Of one vector each."""
    flops: float
    """From parameter counts, as in melbo/elicitation/cost.py."""

    @property
    def total(self) -> int:
        """Answers of all parts."""
        return sum(self.answers.values())

    def text(self) -> str:
        """For a terminal."""
        parts = ", ".join(f"{name} {n:,}" for name, n in self.answers.items() if n)
        return (
            f"at most {self.total:,} answers ({parts}), {self.banks} bank(s), {self.training_steps:,} training steps "
            f"of one vector, about {self.flops:.1e} FLOPs"
        )


def estimate(loaded: LoadedModel, config: AuditConfig, tasks: TaskSet | None = None) -> Work:
    """The work of a plan."""
    found = sites(config, loaded.n_layers)
    cells, n = 2 * len(set(config.scales)), len(found)
    groups = CALIBRATION + 1
    answers = {
        "sweep": 2 * config.sweep_vectors * len(config.radii) + CALIBRATION + 1,
        "behaviours": n * (config.n_vectors + 2 * config.n_control) * cells * config.n_prompts,
        "examples": n * (MOST + len(set(config.scales)) + 1) * config.n_prompts,
        "backdoors": n * ((config.n_vectors + config.n_control) * cells * config.backdoor_prompts + 2 * CALIBRATION),
        "refusals": n * config.refusal_vectors * groups * (2 + 2 * len(REFUSAL_SCALES)),
        "tasks": 0 if tasks is None else _task_answers(config, tasks),
    }
    steps = config.steps * (n * config.n_vectors + config.sweep_vectors * len(config.radii))
    steps += 0 if tasks is None else config.steps * config.n_vectors
    width = max(len(encode(loaded.tokenizer, s.prompt, loaded.context)) for s in found)
    per_token = 2.0 * parameters(loaded)
    part = max((s.target - s.source) / loaded.n_layers for s in found)
    flops = per_token * sum(answers.values()) * (width + config.max_new_tokens) + 2 * part * per_token * steps * width
    return Work(answers, n + (tasks is not None), steps, flops)


def _task_answers(config: AuditConfig, tasks: TaskSet) -> int:
    own, part = task_config(config), tasks.cut(config.n_tasks, config.n_tasks)
    rounds = search_plan(2 * config.n_vectors * len(own.search.scales), len(part.train), own.search)
    return 2 * planned_answers(rounds) + len(part.test) * (4 + own.samples) + 4 * len(part.train)


def cut_to_fit(
    loaded: LoadedModel, config: AuditConfig, tasks: TaskSet | None = None
) -> tuple[AuditConfig, tuple[str, ...]]:
    """The plan within its max_answers, and what was cut, in words.

    Raises:
        ConfigError: even the smallest plan takes more.
    """
    found = config
    for smaller in _smaller(config):
        if estimate(loaded, found, tasks).total <= config.max_answers:
            break
        found = smaller
    least = estimate(loaded, found, tasks).total
    if least > config.max_answers:
        raise ConfigError(f"max_answers is {config.max_answers}; the smallest audit takes up to {least} answers.")
    return found, tuple(
        f"{f.name.replace('_', ' ')}: {_size(getattr(config, f.name))} cut to {_size(getattr(found, f.name))}"
        for f in fields(config)
        if getattr(found, f.name) != getattr(config, f.name) and (f.name != "n_tasks" or tasks is not None)
    )


def _smaller(config: AuditConfig) -> Iterator[AuditConfig]:
    """Plans, each smaller than the one before."""
    for name, least in CUTS:
        while _size(value := getattr(config, name)) > least:
            n = max(least, _size(value) // 2)
            smaller: Any = n if isinstance(value, int) else _fewer(name, value, n)
            config = replace(config, **{name: smaller})
            yield config


def _size(value: Any) -> int:
    return value if isinstance(value, int) else len(value)


def _fewer(name: str, values: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """N of the values: scales near 1, R in the middle, else the first."""
    if name == "scales":
        return tuple(sorted(sorted(values, key=lambda s: abs(math.log(s)))[:n]))
    first = (len(values) - n) // 2 if name == "radii" else 0
    return values[first : first + n]
