"""MELBO: maximise the displacement of the target activations over vectors of norm R, all vectors side by side.

Mack & Turner 2024, "Mechanistically Eliciting Latent Behaviors in Language Models" (LessWrong ioPnHKFyy4Cw2Gr2x).
`published` is their optimiser:
1. start at random points of the sphere of radius R;
2. each step: gradient of the objective, projected off earlier vectors and onto the sphere's tangent;
3. AdamW (amsgrad, betas 0.9 and 0.98, no weight decay) takes a step;
4. project off earlier vectors and back to norm R (QR in fixed order does both at once, exactly).
Vector 1 never sees the others and vector i only those before it, so the converged set is the one that training one
after another gives (with effect_penalty 0). Ours differs in two ways: the step is in units of R, and all vectors share
each step.

`fast` is orthogonalised gradient iteration: the new vectors are the gradients, made orthogonal in the same fixed order
and scaled to R. On a convex objective, and displacement is close to one, every step of the first vector is an ascent
with the longest step the sphere allows. Later vectors jump about, since those before them move: the last SETTLING steps
go half way only. A quarter of the steps reaches the same mean objective to 1% (benchmarks/train_speed.py, docs/log.md).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from melbo.config import DiscoveryConfig
from melbo.discovery.problem import Evaluation, check_finite
from melbo.runs.checkpoint import Run
from melbo.steering.sphere import project_gradient, to_sphere

Evaluate = Callable[[Tensor, Tensor | None], Evaluation]
"""(vectors, `Evaluation.effects` they had before, or None) -> objective, gradient, outputs, effects."""

SETTLING = 3
"""Last steps of `fast` that go half way; more of them do not raise the objective further."""


def maximize(evaluate: Evaluate, start: Tensor, radius: float, config: DiscoveryConfig, run: Run) -> Tensor:
    """Vectors [n, d_model] of norm `radius` that maximise an objective, by config.optimizer.

    Args:
        start: starting points [n, d_model] of norm `radius`.

    Raises:
        TrainingError: the objective or gradient of a vector is not finite; the last checkpoint stays.
    """
    return (published if config.optimizer == "published" else fast)(evaluate, start, radius, config, run)


def published(
    evaluate: Evaluate,
    start: Tensor,
    radius: float,
    config: DiscoveryConfig,
    run: Run,
    fixed: Tensor | None = None,
) -> Tensor:
    """AdamW on the sphere. With `fixed` [k, d_model], all vectors also stay orthogonal to these."""
    head = start[:0] if fixed is None else fixed
    if len(head):
        start = to_sphere(torch.cat([head, start]), radius, config.orthogonal)[len(head) :]
    parameter = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW(
        [parameter], lr=config.lr * radius / start.shape[1] ** 0.5, betas=(0.9, 0.98), weight_decay=0.0, amsgrad=True
    )
    first, saved = run.restore()
    effects = saved.pop("effects").to(start) if "effects" in saved else None
    if saved:
        parameter.data = saved.pop("vectors").to(start)
        optimizer.load_state_dict({"state": {0: saved}, "param_groups": optimizer.state_dict()["param_groups"]})
    for step in range(first, config.steps or 0):
        found = evaluate(parameter.data, effects)
        check_finite(step, objective=found.objective, gradient=found.gradient)
        effects = found.effects
        joined = torch.cat([head, parameter.data])
        gradient = torch.cat([torch.zeros_like(head), found.gradient])
        parameter.grad = -project_gradient(gradient, joined, config.orthogonal)[len(head) :]
        optimizer.step()
        parameter.data = to_sphere(torch.cat([head, parameter.data]), radius, config.orthogonal)[len(head) :]
        state = {"vectors": parameter.data, **_kept(effects), **optimizer.state_dict()["state"][0]}
        run.step(step + 1, config.steps or 0, float(found.objective.mean()), state)
    return parameter.data.detach()


def fast(evaluate: Evaluate, start: Tensor, radius: float, config: DiscoveryConfig, run: Run) -> Tensor:
    """Orthogonalised gradient iteration."""
    first, saved = run.restore()
    vectors = saved["vectors"].to(start) if saved else start.clone()
    effects = saved["effects"].to(start) if "effects" in saved else None
    for step in range(first, config.steps or 0):
        found = evaluate(vectors, effects)
        check_finite(step, objective=found.objective, gradient=found.gradient)
        effects = found.effects
        vectors = follow_gradient(vectors, found.gradient, radius, step, config)
        state = {"vectors": vectors, **_kept(effects)}
        run.step(step + 1, config.steps or 0, float(found.objective.mean()), state)
    return vectors


def follow_gradient(vectors: Tensor, gradient: Tensor, radius: float, step: int, config: DiscoveryConfig) -> Tensor:
    """The vectors [n, d_model] after this step of `fast`."""
    towards = normalize(gradient, dim=-1)
    if step >= (config.steps or 0) - SETTLING:
        towards = towards + vectors / radius
    return to_sphere(towards, radius, config.orthogonal)


def _kept(effects: Tensor | None) -> dict[str, Tensor]:
    """What a checkpoint keeps of the effects."""
    return {} if effects is None else {"effects": effects}
