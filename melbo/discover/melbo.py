"""MELBO as published, with all vectors trained side by side.

Mack & Turner 2024, "Mechanistically Eliciting Latent Behaviors in Language Models" (LessWrong ioPnHKFyy4Cw2Gr2x):
1. start at random points of the sphere of radius R;
2. each step: gradient of the displacement objective, projected off earlier vectors and onto the sphere's tangent;
3. AdamW (amsgrad, betas 0.9 and 0.98, no weight decay) takes a step;
4. project off earlier vectors and back to norm R (QR in fixed order does both at once, exactly).
Vector 1 never sees the others and vector i only those before it, so the converged set is the one that training one
after another gives. Ours differs in two ways: the step is in units of R, and all vectors share each step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from melbo.config import DiscoveryConfig
from melbo.errors import TrainingError
from melbo.objective import displacement, project_gradient, to_sphere
from melbo.slices import Slice

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, mean objective); raise to cancel."""

TOKENS_PER_CHUNK = 4096
"""Tokens of one forward pass; chunks bound the memory, not the number of vectors."""


def objective_and_gradient(
    slices: list[Slice], vectors: Tensor, config: DiscoveryConfig, gradient: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Objective [n], its gradient [n, d_model] and the mean output change [n, d_model], summed over prompts."""
    objective = torch.zeros(len(vectors), dtype=vectors.dtype)
    grad = torch.zeros_like(vectors)
    output = torch.zeros_like(vectors)
    for piece in slices:
        size = max(1, TOKENS_PER_CHUNK // piece.source.shape[1])
        tokens = min(config.target_tokens, piece.source.shape[1])
        for start in range(0, len(vectors), size):
            part = slice(start, start + size)
            theta = vectors[part].detach().to(piece.source.device).requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                change = piece.change(theta, tokens)
                value = displacement(change, config.power, config.root)
            if gradient:
                (g,) = torch.autograd.grad(value.sum(), theta)
                grad[part] += g.to(grad.device)
            objective[part] += value.detach().to("cpu")
            output[part] += change.detach().mean(dim=1).to(output.device) / len(slices)
    return objective, grad, output


def train(
    slices: list[Slice], start: Tensor, radius: float, config: DiscoveryConfig, progress: Progress | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Train all vectors.

    Args:
        start: starting points [n, d_model] of norm `radius`.

    Returns:
        vectors [n, d_model] of norm `radius`, objective [n], mean output change [n, d_model].

    Raises:
        TrainingError: the objective or gradient of a vector is not finite.
    """
    vectors = start.clone()
    d_model = vectors.shape[1]
    parameter = torch.nn.Parameter(vectors)
    optimizer = torch.optim.AdamW(
        [parameter], lr=config.lr * radius / d_model**0.5, betas=(0.9, 0.98), weight_decay=0.0, amsgrad=True
    )
    for step in range(config.steps):
        objective, grad, _ = objective_and_gradient(slices, parameter.data, config)
        _check_finite(objective, grad, step)
        parameter.grad = -project_gradient(grad, parameter.data, config.orthogonal)
        optimizer.step()
        parameter.data = to_sphere(parameter.data, radius, config.orthogonal)
        if progress is not None:
            progress(step + 1, config.steps, float(objective.mean()))
    vectors = parameter.data.detach()
    objective, _, output = objective_and_gradient(slices, vectors, config, gradient=False)
    return vectors, objective, output


def _check_finite(objective: Tensor, grad: Tensor, step: int) -> None:
    bad = ~(torch.isfinite(objective) & torch.isfinite(grad).all(dim=-1).cpu())
    if bool(bad.any()):
        raise TrainingError(
            f"the objective of vector {int(bad.nonzero()[0])} is not finite at step {step}; "
            "lower the radius, or load the model in float32."
        )
