"""R sweep: train vectors at each radius, answer with them, and measure; the same for random vectors of the same norm.

1. Train config.n_vectors vectors at every R with the bank's own config, all R in one batch if the method allows it
   (melbo/discovery/batched_radii.py). Every R starts from the same directions.
2. Answer the prompts with each vector, trained and random, at scale 1, with many rows in a batch.
3. Measure the answers (melbo/measure/). A judge that knows the model's behaviours counts them.
4. Suggest the R with the most diverse answers that are still coherent (melbo/radius_sweep/result.py).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.bank.vector_bank import BaseModel, VectorBank, library_versions
from melbo.config import DiscoveryConfig
from melbo.discovery.batched_radii import shares_passes, train_radii
from melbo.discovery.choose_radius import calibrated, choose_radius
from melbo.discovery.discover import make_slices
from melbo.discovery.problem import Problem, plain_attention
from melbo.errors import BankError, ConfigError
from melbo.measure.behaviour_judge import BehaviourJudge, check_judge, judge_key
from melbo.measure.coherence import CoherenceScale, calibrate_coherence
from melbo.measure.completions import measure, rates
from melbo.measure.embeddings import Embedder
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.radius_sweep.arms import answer, make_arm
from melbo.radius_sweep.config import SweepConfig
from melbo.radius_sweep.result import Sweep, SweepRow, load_sweep
from melbo.runs.checkpoint import Checkpoint, Run
from melbo.runs.processes import start_processes
from melbo.runs.progress import OnProgress, Progress, notify
from melbo.steering.generate import complete
from melbo.steering.random_vectors import control_vectors
from melbo.steering.slices import mean_residual_norm

__all__ = ["Sweep", "SweepConfig", "load_sweep", "run_sweep"]

ANSWER_ROWS = 128
"""About how many answers a batch holds: those of one or more whole R."""


def run_sweep(
    loaded: LoadedModel,
    config: SweepConfig,
    prompts: Sequence[Sequence[Message]],
    embedder: Embedder,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    bank: VectorBank | None = None,
    judge: BehaviourJudge | None = None,
    each: Callable[[Sweep], object] = lambda _: None,
    coherence_scale: CoherenceScale | None = None,
) -> Sweep:
    """The complete sweep.

    Args:
        config: settings; layers and steps left at None are resolved from the model's depth.
        prompts: conversations to train the vectors on and to answer.
        embedder: sentence embeddings, for diversity and change.
        progress: called after each training step and each R.
        checkpoint: file that a stopped run of the same settings goes on from, with the vectors in training
            next to it; delete it once the sweep is saved. The result is the same, interrupted or not.
        bank: the bank that the sweep is for; its model, prompts and config must be those of the sweep.
        judge: counts the known behaviours in the answers; None if this model has no such judge.
        each: called with the sweep so far: first without rows, then after each batch of R. Its exceptions cancel.
        coherence_scale: of the model; None: calibrated.

    Raises:
        ConfigError, PromptError: bad settings or prompts, or a judge of another model.
        BankError: the checkpoint is of another sweep or damaged, or the sweep does not fit `bank`.
        MetricError: the model cannot tell its own answers from scrambled ones.
        TrainingError, MemoryLimitError: as in `melbo.discovery.discover.discover`.
    """
    start_processes()
    config = config.resolve(loaded.n_layers, loaded.d_model)
    check_judge(judge, loaded)
    if bank is not None:
        bank.check_fits(loaded)
    with plain_attention(loaded):
        task = _Task(loaded, config, prompts, embedder, judge, coherence_scale)
        saved = Checkpoint(checkpoint, task.key, BankError)
        sweep = saved.load(lambda found: Sweep.of(found.values, found.path), lambda s: len(s.rows)) or task.start()
    if bank is not None:
        sweep.check_fits(bank)
    saved.save(sweep.values())
    each(sweep)
    per_answer_batch = max(1, ANSWER_ROWS // (2 * config.n_vectors * len(prompts)))
    per_training = len(config.radii) if shares_passes(config.base) else 1
    bar = _Bar(progress, len(config.radii), config.base.steps or 0, per_training)
    for first in range(0, len(config.radii), per_training):
        group = range(first, min(first + per_training, len(config.radii)))
        training = Checkpoint(None if checkpoint is None else training_file(checkpoint, first))
        if len(sweep.rows) <= group[-1]:
            vectors = task.train(list(group), bar, training.path)
        for start in range(group[0], group[-1] + 1, per_answer_batch):
            part = [i for i in range(start, start + per_answer_batch) if i in group]
            if len(sweep.rows) <= part[-1]:
                rows = task.rows(part, vectors[[i - first for i in part]], sweep)
                sweep = replace(sweep, rows=(*sweep.rows, *rows))
                saved.save(sweep.values())
                bar.answered(len(sweep.rows))
                each(sweep)
        training.delete()
    return sweep


def training_file(checkpoint: Path, first: int) -> Path:
    """File for the vectors in training from radius number `first` on; kept until their answers are measured."""
    return checkpoint.with_name(f"{checkpoint.name}.{first}.safetensors")


class _Bar:
    """Training steps and finished R, counted together."""

    def __init__(self, progress: OnProgress | None, n_radii: int, steps: int, per_training: int) -> None:
        self.progress, self.steps, self.per_training = progress, steps, per_training
        self.total = n_radii + steps * -(-n_radii // per_training)

    def trained(self, first: int, step: Progress) -> None:
        """Report a step of the training that starts with radius number `first`."""
        self._tell(first + self.steps * (first // self.per_training) + step.done, "training")

    def answered(self, rows: int) -> None:
        """Report that `rows` R have their rows."""
        self._tell(rows + self.steps * -(-rows // self.per_training), "answering")

    def _tell(self, done: int, what: str) -> None:
        notify(self.progress, done, self.total, what)


class _Task:
    """What all R of a sweep share."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: SweepConfig,
        prompts: Sequence[Sequence[Message]],
        embedder: Embedder,
        judge: BehaviourJudge | None,
        coherence_scale: CoherenceScale | None,
    ) -> None:
        self.loaded, self.config, self.embedder, self.judge = loaded, config, embedder, judge
        self.coherence_scale = coherence_scale
        self.prompts = tuple(list(p) for p in prompts)
        base = config.base
        assert base.source_layer is not None and base.target_layer is not None
        slices = make_slices(loaded, prompts, base.source_layer, base.target_layer)
        self.problem, self.mean_norm = Problem(slices, base), mean_residual_norm(slices)
        self.norms = [self._norm(replace(base, radius=r, radius_unit=config.unit)) for r in config.radii]
        self.auto_norm: float | None = None
        with suppress(ConfigError):  # in the range of the search the slice is too linear, or not linear at all
            self.auto_norm = calibrated(self.problem, base.seed, self.mean_norm).radius

    def _norm(self, settings: DiscoveryConfig) -> float:
        """R in activation units."""
        return choose_radius(self.problem, settings, self.mean_norm, Run())[0]

    @cached_property
    def key(self) -> dict[str, Any]:
        """What decides the result."""
        given: dict[str, Any] = {"embedder": self.embedder.name, "judge": judge_key(self.judge)}
        if self.coherence_scale is not None:
            given["coherence_scale"] = asdict(self.coherence_scale)
        return run_key(self.loaded, asdict(self.config), self.prompts, **given)

    def start(self) -> Sweep:
        """A sweep without rows, with what the unsteered model does."""
        loaded, unit = self.loaded, self.mean_norm if self.config.unit == "residual" else 1.0
        scale = self.coherence_scale or calibrate_coherence(loaded)
        answers = complete(loaded, self.prompts, sampling=self.config.sampling)
        found = measure(loaded, self.prompts, answers, answers, self.embedder, scale)
        return Sweep(
            config=self.config,
            base_model=BaseModel(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers),
            dtype=str(loaded.model.dtype),
            prompts=tuple(tuple(dict(m) for m in p) for p in self.prompts),
            embedder=self.embedder.name,
            coherence_scale=scale,
            mean_residual_norm=self.mean_norm,
            unsteered=tuple(answers),
            unsteered_coherence=rates(found).coherence,
            auto_radius=None if self.auto_norm is None else self.auto_norm / unit,
            versions=library_versions(),
            rows=(),
        )

    def train(self, group: Sequence[int], bar: _Bar, saved: Path | None) -> Tensor:
        """Vectors [radii, n, d_model] of these radii, trained."""
        base, norms = self.config.base, [self.norms[i] for i in group]
        run = Run(partial(bar.trained, group[0]), saved, {**self.key, "radii": list(group)})
        with plain_attention(self.loaded):
            return train_radii(self.problem, base, norms, run)

    def rows(self, numbers: Sequence[int], vectors: Tensor, sweep: Sweep) -> list[SweepRow]:
        """Rows of these radii; they do not depend on earlier measurements."""
        base, n = self.config.base, self.config.n_vectors
        norms = [self.norms[i] for i in numbers]
        random = [control_vectors(n, self.loaded.d_model, r, base.orthogonal, base.seed) for r in norms]
        pairs = torch.stack([vectors.cpu(), torch.stack(random)], dim=1)  # [radii, 2, n, d_model]
        flat = pairs.flatten(0, 2)
        with plain_attention(self.loaded):
            objective = self.problem.evaluate(flat.to(vectors.device), gradient=False).objective
        found = [answer(self.loaded, sweep, i, flat, self.embedder, self.judge) for i in range(len(self.prompts))]
        counted = () if self.judge is None else self.judge.counted
        arms = [
            make_arm(objective[k : k + n], [a.part(k, k + n) for a in found], counted) for k in range(0, len(flat), n)
        ]
        return [SweepRow(self.config.radii[i], norms[k], arms[2 * k], arms[2 * k + 1]) for k, i in enumerate(numbers)]
