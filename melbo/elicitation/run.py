"""Elicitation from end to end: the plain model, the best vector, random vectors, and the baselines, on held-out tasks.

1. Discover a bank on one or a few training prompts.
2. Choose its best vector and scale on training tasks. Do the same with random vectors of the same norm.
3. Report all of them, and what each cost, on the test tasks, which played no part in the choices.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from melbo.bank.result_file import write_result
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import discover, random_control
from melbo.elicitation.baselines.arms import (
    ELICITING,
    Arm,
    Asking,
    asked,
    best_of_n,
    fine_tuned,
    prompting,
    worked_examples,
)
from melbo.elicitation.baselines.lora import LoraConfig
from melbo.elicitation.cached_generation import Answerer
from melbo.elicitation.cost import Compute, discovery_compute
from melbo.elicitation.search import Search, SearchConfig, plan, planned_answers, search
from melbo.elicitation.tasks.checks import Functions
from melbo.elicitation.tasks.load import Task, TaskSet
from melbo.errors import MissingPackageError, TaskError
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.runs.progress import OnProgress, titled
from melbo.runs.settings import Positive, Settings, Size
from melbo.steering.generate import Sampling

FORMAT = "melbo-elicit-1"
Baseline = Literal["prompting", "few_shot", "best_of_n", "lora"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


@dataclass(frozen=True)
class ElicitConfig(Settings):
    """Settings of an elicitation."""

    discovery: DiscoveryConfig = field(
        default_factory=lambda: DiscoveryConfig(n_vectors=32, radius=0.35, radius_unit="residual")
    )
    n_prompts: Size = 1
    """Number of training prompts to discover the bank on."""
    n_choose: Size = 64
    """Most training tasks to use for vectors, prompts and fine-tuning."""
    search: SearchConfig = field(default_factory=SearchConfig)
    password: Asking | None = None
    """The password that unlocks the model, if it is known: the ceiling."""
    baselines: tuple[Baseline, ...] = BASELINES
    samples: Size = 8
    """Samples of best_of_n, at the temperature below."""
    temperature: Positive = 1.0
    shots: Size = 4
    """Of few_shot: solved tasks before the question."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    max_new_tokens: Size = 64
    """Longest answer, in tokens."""
    batch_size: Size = 64
    """Answers in one batch."""


@dataclass(frozen=True)
class Elicited:
    """What each way achieves. Arms: "plain", "vector", "random"; "password" and baselines if asked for."""

    model: str
    revision: str | None
    config: ElicitConfig
    arms: dict[str, Arm]
    search: Search
    random_search: Search
    bank: VectorBank
    skipped: dict[str, str]
    """Baselines that were not run, and why."""

    @property
    def recovered(self) -> float | None:
        """Share of the gap between plain and password accuracy that the vector closes; None without a gap."""
        if "password" not in self.arms:
            return None
        plain, top = (self.arms[name].score.accuracy for name in ("plain", "password"))
        return None if top <= plain else (self.arms["vector"].score.accuracy - plain) / (top - plain)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, without the bank's tensors."""
        return {
            "model": self.model,
            "revision": self.revision,
            "config": self.config.to_dict(),
            "arms": {name: arm.to_dict() for name, arm in self.arms.items()},
            "recovered": self.recovered,
            "search": self.search.to_dict(),
            "random_search": self.random_search.to_dict(),
            "skipped": dict(self.skipped),
        }

    def save(self, path: Path) -> Path:
        """Write the result as JSON, whole or not at all."""
        return write_result(path, FORMAT, self.to_dict())


def elicit(
    loaded: LoadedModel,
    tasks: TaskSet,
    config: ElicitConfig | None = None,
    functions: Functions | None = None,
    bank: VectorBank | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> Elicited:
    """Elicit, with controls and baselines.

    Args:
        tasks: choices are made on the training split and reported on the test split.
        functions: for tasks that are checked by functions.
        bank: to use instead of discovering one; its prompts must not be test prompts.
        progress: called with the answers so far, those planned and what is being answered; with steps while a bank is
            found.
        checkpoint: file that a stopped run with the same settings goes on from; delete it when the result is
            saved, with `forget`. The fine-tuned model is made anew.

    Raises:
        TaskError: a bank's prompt is a test prompt, a checker function is missing, or the checkpoint is damaged.
        ConfigError, PromptError, TrainingError: bad settings or prompts.
    """
    config = config or ElicitConfig()
    _check_functions([*tasks.train, *tasks.test], functions or {})
    if bank is None:
        prompts = [t.messages for t in tasks.train[: config.n_prompts]]
        beside = None if checkpoint is None else _bank_file(checkpoint)
        bank = discover(loaded, config.discovery, prompts, titled(progress, "training vectors"), beside)
    _check_leak(bank, tasks.test)
    chosen = tasks.train[: config.n_choose]
    sampling = Sampling(config.max_new_tokens, seed=config.discovery.seed)
    both = (*chosen, *tasks.test)
    given = {"bank": bank.digest, "checks": [asdict(t.check) for t in both]}
    key = run_key(loaded, config.to_dict(), [t.messages for t in both], **given)
    total = _planned(bank, len(chosen), tasks, config)
    answerer = Answerer(loaded, sampling, config.batch_size, progress, total, checkpoint, key)
    plain = [t.messages for t in tasks.test]
    arms = {"plain": asked(answerer, "plain", tasks.test, plain, functions)}
    if config.password is not None:
        unlocked = [config.password.apply(m) for m in plain]
        arms["password"] = asked(answerer, "password", tasks.test, unlocked, functions, chosen=config.password.text)
    found: dict[str, Search] = {}
    for name, own in (("vector", bank), ("random", random_control(loaded, bank))):
        found[name] = search(answerer, own, chosen, config.search, functions, name)
        training = discovery_compute(loaded, own) if name == "vector" else Compute()
        best, cost = found[name].best, training + found[name].compute
        rows = own.vector(best.vector, best.scale).expand(len(plain), -1)
        told = f"vector {best.vector} x {best.scale:g}, {best.right} of {best.tried} training tasks"
        arms[name] = asked(answerer, name, tasks.test, plain, functions, cost, told, vectors=rows, layer=own.layer)
    skipped: dict[str, str] = {}
    for name in config.baselines:
        try:
            arms[name] = _baseline(name, answerer, tasks, config, functions)
        except (TaskError, MissingPackageError) as error:  # such as tasks without solutions
            skipped[name] = str(error)
    return Elicited(loaded.name, loaded.revision, config, arms, found["vector"], found["random"], bank, skipped)


def forget(checkpoint: Path) -> None:
    """Delete a run's checkpoint files."""
    checkpoint.unlink(missing_ok=True)
    _bank_file(checkpoint).unlink(missing_ok=True)


def _bank_file(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.bank.safetensors")


def _baseline(name: str, answerer: Answerer, tasks: TaskSet, config: ElicitConfig, functions: Functions | None) -> Arm:
    if name == "prompting":
        return prompting(answerer, tasks, config.n_choose, functions)
    if name == "few_shot":
        return worked_examples(answerer, tasks, config.shots, functions)
    if name == "best_of_n":
        return best_of_n(answerer, tasks, config.samples, config.temperature, functions)
    return fine_tuned(answerer, tasks, config.n_choose, config.lora, functions)


def _planned(bank: VectorBank, n_choose: int, tasks: TaskSet, config: ElicitConfig) -> int:
    """Number of answers that will be generated, for the progress."""
    arms = 3 + (config.password is not None) + len(set(config.baselines) - {"best_of_n"})
    rounds = plan(2 * len(bank) * len(set(config.search.scales)), n_choose, config.search)
    total = arms * len(tasks.test) + 2 * planned_answers(rounds)
    total += len(ELICITING) * n_choose * ("prompting" in config.baselines)
    return total + config.samples * len(tasks.test) * ("best_of_n" in config.baselines)


def _check_functions(tasks: Sequence[Task], functions: Functions) -> None:
    for task in tasks:
        if task.check.kind == "python" and task.check.value not in functions:
            raise TaskError(f"{task.place}: there is no checker function {task.check.value!r}; give it.")


def _check_leak(bank: VectorBank, test: Sequence[Task]) -> None:
    """Raise TaskError where a bank was trained on a test prompt."""
    tested = {t.question for t in test}
    for prompt in bank.prompts:
        question = Task(tuple(prompt), test[0].check).question
        if question in tested:
            raise TaskError(f"the bank was trained on a test prompt: {question[:60]!r}; train it on another.")
