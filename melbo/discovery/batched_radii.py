"""Vectors at many radii side by side: the rows of every R share each pass, and each R keeps its own orthogonal set."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from melbo.config import DiscoveryConfig
from melbo.discovery.discover import run_method
from melbo.discovery.methods.displacement import follow_gradient
from melbo.discovery.problem import Problem, check_finite
from melbo.runs.checkpoint import Run
from melbo.steering.random_vectors import random_vectors


def shares_passes(config: DiscoveryConfig) -> bool:
    """Whether `train_radii` takes all radii in one batch: fast melbo, where no vector sees the others' effects."""
    return config.method == "melbo" and config.optimizer == "fast" and config.effect_penalty == 0


def train_radii(problem: Problem, config: DiscoveryConfig, radii: Sequence[float], run: Run) -> Tensor:
    """config.n_vectors vectors at each radius, by config's method; its own radius is not used.

    Args:
        config: resolved settings. Every R starts from the same directions, those of config.seed, so that what it gives
            differs from `melbo.discovery.discover.discover` at that R by rounding only.
        radii: activation units, each above 0; more than one only where `shares_passes(config)`.
        run: told of each step.

    Returns:
        [radii, n_vectors, d_model], on the device of the slices.

    Raises:
        TrainingError: the objective or gradient of a vector is not finite.
    """
    source = problem.slices[0].source
    n, d_model = config.n_vectors, source.shape[-1]
    starts = [random_vectors(n, d_model, r, config.orthogonal, config.seed).to(source.device) for r in radii]
    if not shares_passes(config):
        (start,), (radius,) = starts, radii
        settings = replace(config, radius=radius, radius_unit="absolute")
        return run_method(problem, start, radius, settings, run, None).vectors[None]
    first, saved = run.restore()
    vectors = saved["vectors"].to(starts[0]) if saved else torch.stack(starts)  # [radii, n, d_model]
    for step in range(first, config.steps or 0):
        found = problem.evaluate(vectors.flatten(0, 1))
        check_finite(step, objective=found.objective, gradient=found.gradient)
        groups = found.gradient.view(len(radii), n, d_model)
        parts = zip(vectors, groups, radii, strict=True)
        vectors = torch.stack([follow_gradient(v, g, r, step, config) for v, g, r in parts])
        run.step(step + 1, config.steps or 0, float(found.objective.mean()), {"vectors": vectors})
    return vectors
