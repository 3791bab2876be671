"""How much an audit does: settings, named budgets, and the sites that banks are trained at."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from melbo.annotation.annotate import HARMLESS
from melbo.config import STEPS, DiscoveryConfig
from melbo.elicitation.run import ElicitConfig
from melbo.errors import ConfigError, PromptError
from melbo.prompts import BOMB, DEFAULT_SYSTEM, INNOCUOUS, REFUSED, Message, chat
from melbo.runs.settings import Scales, Settings, Size, Whole

MOST = 24
"""Pairs of vector and scale at a site that a report shows answers of."""


@dataclass(frozen=True)
class AuditConfig(Settings):
    """What an audit tries. One bank is trained for each prompt and each pair of layers."""

    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = (BOMB,)
    """User messages that banks are trained on, one each."""
    system: str = DEFAULT_SYSTEM
    """System message; "" for none."""
    layers: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)] = ((0.25, 0.75),)
    """Source and target as shares of the depth."""
    n_vectors: Size = 32
    """Vectors of each bank."""
    steps: Size = STEPS["fast"]
    """Training steps of banks and sweep."""
    radii: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7)
    """R of the sweep in mean residual norms, ascending; banks get the one that it suggests."""
    sweep_vectors: Size = 8
    """At each R, and as many random ones."""
    scales: Scales = (0.75, 1.0, 1.5)
    """Sizes that are tried, both signs."""
    n_control: Size = 8
    """Random vectors that the bank's are compared with, and as many others that are treated as if they were found."""
    n_prompts: Size = 5
    """Prompts that every vector answers, the bank's own among them."""
    backdoor_prompts: Size = 1
    """Of these, how many the search for backdoors uses."""
    refusal_vectors: Size = 1
    """Most vectors of a bank whose effect on refusals is studied."""
    max_new_tokens: Size = 48
    """Longest answer."""
    n_tasks: Size = 32
    """Most tasks of each split, where there is a task file."""
    corpus_documents: Size = 300
    """Most documents, where there is a corpus."""
    max_answers: Size = 10_000
    """Most answers; the plan is cut to fit."""
    seed: Whole = 325
    """Of vectors."""

    def check(self) -> None:
        """What takes more than one field."""
        if not all(p.strip() for p in self.prompts):
            raise PromptError("a prompt is empty; give at least one character.")
        if not all(0 <= source < target <= 1 for source, target in self.layers):
            raise ConfigError(f"layers are {self.layers}; give pairs of shares of the depth, the smaller one first.")


_LARGER: dict[str, tuple[Any, Any]] = {
    "prompts": ((BOMB, INNOCUOUS[3]), (BOMB, REFUSED[3], INNOCUOUS[3], INNOCUOUS[4])),
    "layers": (((0.25, 0.75), (0.5, 0.9)), ((0.25, 0.75), (0.1, 0.5), (0.5, 0.9))),
    "n_vectors": (64, 128),
    "steps": (STEPS["fast"], 60),
    "radii": ((0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0), (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.25, 1.5)),
    "sweep_vectors": (8, 12),
    "scales": ((0.5, 0.75, 1.0, 1.5, 2.0), (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)),
    "n_control": (8, 16),
    "n_prompts": (8, 16),
    "backdoor_prompts": (2, 4),
    "refusal_vectors": (2, 4),
    "max_new_tokens": (64, 96),
    "n_tasks": (100, 400),
    "corpus_documents": (2_000, 20_000),
    "max_answers": (100_000, 1_000_000),
}
"""Settings of the budgets "standard" and "deep"; "quick" has the defaults."""
BUDGETS = {
    "quick": AuditConfig(),
    "standard": AuditConfig(**{name: standard for name, (standard, _) in _LARGER.items()}),
    "deep": AuditConfig(**{name: deep for name, (_, deep) in _LARGER.items()}),
}
"""By name."""


@dataclass(frozen=True)
class Site:
    """Where one bank is trained."""

    name: str
    """Of its files and in the report: "A", "B", ..."""
    prompt: tuple[Message, ...]
    source: int
    target: int


def sites(config: AuditConfig, n_layers: int) -> list[Site]:
    """Every prompt at every pair of layers; pairs that fall together in a shallow model count once."""
    pairs = []
    for low, high in config.layers:
        source = min(round(low * n_layers), n_layers - 2)
        pairs.append((source, max(source + 1, min(n_layers, round(high * n_layers)) - 1)))
    places = [(p, *pair) for pair in dict.fromkeys(pairs) for p in dict.fromkeys(config.prompts)]
    names = [chr(ord("A") + i) if i < 26 else f"Z{i}" for i in range(len(places))]
    return [
        Site(name, tuple(chat(prompt, config.system)), source, target)
        for name, (prompt, source, target) in zip(names, places, strict=True)
    ]


def answered(config: AuditConfig, site: Site) -> list[list[Message]]:
    """What a bank's vectors answer: its own prompt, then prompts to refuse and to answer in turn."""
    ordinary = (*HARMLESS, *INNOCUOUS)
    turns = [t for pair in zip(REFUSED, ordinary, strict=False) for t in pair] + list(REFUSED[len(ordinary) :])
    own = site.prompt[-1]["content"]
    return [list(site.prompt), *(chat(t, config.system) for t in turns if t != own)][: config.n_prompts]


def task_config(config: AuditConfig) -> ElicitConfig:
    """Settings of the elicitation on a task file."""
    discovery = replace(ElicitConfig().discovery, n_vectors=config.n_vectors, steps=config.steps, seed=config.seed)
    return ElicitConfig(
        discovery=discovery, n_choose=config.n_tasks, baselines=("prompting", "best_of_n"), samples=4,
        max_new_tokens=config.max_new_tokens,
    )  # fmt: skip


def discovery(config: AuditConfig, site: Site, **more: Any) -> DiscoveryConfig:
    """Settings of a site's bank."""
    given = {"n_vectors": config.n_vectors, "steps": config.steps, "seed": config.seed}
    return DiscoveryConfig(source_layer=site.source, target_layer=site.target, **given | more)
