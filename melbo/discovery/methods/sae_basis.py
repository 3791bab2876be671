"""MELBO in an SAE's basis: maximise the displacement over combinations of at most `sparsity` decoder directions.

So that what is found can be read: each vector is a sum of a few features. Projected gradient iteration, as `fast` in
melbo.py (iterative hard thresholding: Blumensath & Davies 2009):
1. the gradients of the objective at all vectors, made orthogonal in fixed order where config.orthogonal is on;
2. each is projected on its best combination of `sparsity` directions by orthogonal matching pursuit, with coefficients
   of both signs;
3. the combination is scaled to norm R.
With `orthogonal`, no two vectors share a feature: a vector may not use those of the vectors before it. Sparse vectors
cannot also be orthogonal exactly; their cosines are only as small as the dictionary's own. The step with the largest
mean objective is kept, since a projected step can also lose.
"""

import torch
from torch import Tensor

from melbo.config import DiscoveryConfig
from melbo.discovery.problem import Problem, check_finite
from melbo.errors import ConfigError
from melbo.runs.checkpoint import Run
from melbo.steering.sphere import to_sphere


def find(
    problem: Problem, start: Tensor, radius: float, config: DiscoveryConfig, run: Run, decoder: Tensor
) -> tuple[Tensor, Tensor]:
    """Vectors [n, d_model] of norm `radius` and their coefficients [n, d_sae] on the unit decoder directions.

    Args:
        start: starting points [n, d_model], projected first.
        decoder: directions [d_sae, d_model] of any norm; those of norm 0 are never used.

    Raises:
        ConfigError: the decoder is of another width, or has too few features for so many vectors without sharing.
        TrainingError: the objective or gradient of a vector is not finite.
    """
    check_decoder(decoder, start, config)
    directions = torch.nn.functional.normalize(decoder.to(start), dim=-1)
    first, saved = run.restore()
    if saved:
        weights, best = saved["weights"].to(start), saved["best"].to(start)
        best_objective = float(saved["objective"])
    else:
        weights = sparse_weights(start, directions, config.sparsity, config.orthogonal)
        best, best_objective = weights, float("-inf")
    steps = config.steps or 0
    for step in range(first, steps + 1):
        vectors = to_sphere(weights @ directions, radius, False)
        found = problem.evaluate(vectors)
        check_finite(step, objective=found.objective, gradient=found.gradient)
        mean = float(found.objective.mean())
        if mean > best_objective:
            best, best_objective = weights, mean
        if step == steps:
            break
        target = to_sphere(found.gradient, 1.0, config.orthogonal)
        weights = sparse_weights(target, directions, config.sparsity, config.orthogonal)
        state = {"weights": weights, "best": best, "objective": torch.tensor(best_objective, dtype=torch.float64)}
        run.step(step + 1, steps, mean, state)
    combined = best @ directions
    return to_sphere(combined, radius, False), best * (radius / combined.norm(dim=-1, keepdim=True))


def check_decoder(decoder: Tensor, start: Tensor, config: DiscoveryConfig) -> None:
    """Raise ConfigError unless the dictionary is wide and large enough."""
    if decoder.ndim != 2 or decoder.shape[1] != start.shape[1]:
        raise ConfigError(
            f"the decoder has shape {list(decoder.shape)}; this model needs [d_sae, {start.shape[1]}]: "
            "choose an SAE of the model's width."
        )
    usable = int((decoder.norm(dim=-1) > 0).sum())
    needed = config.sparsity * (len(start) if config.orthogonal else 1)
    if usable < needed:
        raise ConfigError(
            f"{len(start)} vectors of {config.sparsity} features each need {needed} features, the SAE has {usable}; "
            "ask for fewer vectors or features, or switch orthogonality off, so that vectors may share features."
        )


def sparse_weights(targets: Tensor, directions: Tensor, sparsity: int, disjoint: bool) -> Tensor:
    """Coefficients [n, d_sae] of each target's orthogonal matching pursuit over unit directions [d_sae, d_model].

    Every row has at most `sparsity` coefficients; with `disjoint`, no column has more than one.
    """
    usable = directions.norm(dim=-1) > 0
    if not disjoint:
        return _pursue(targets, directions, sparsity, usable)
    weights = targets.new_zeros(len(targets), len(directions))
    for i, target in enumerate(targets):
        weights[i] = _pursue(target[None], directions, sparsity, usable)[0]
        usable = usable & (weights[i] == 0)
    return weights


def _pursue(targets: Tensor, directions: Tensor, sparsity: int, usable: Tensor) -> Tensor:
    """Orthogonal matching pursuit of all targets [n, d_model] side by side."""
    chosen = torch.zeros(len(targets), 0, dtype=torch.long, device=targets.device)
    left, fitted = targets.double(), targets.new_zeros(len(targets), 0).double()
    exact = directions.double()
    for _ in range(sparsity):
        products = (left @ exact.T).abs().masked_fill(~usable, -1.0)
        products.scatter_(1, chosen, -1.0)
        chosen = torch.cat([chosen, products.argmax(dim=1, keepdim=True)], dim=1)  # [n, so far]
        picked = exact[chosen].transpose(1, 2)  # [n, d_model, so far]
        gram = picked.transpose(1, 2) @ picked
        gram += 1e-9 * torch.eye(chosen.shape[1]).to(gram)  # two equal directions
        fitted = torch.linalg.solve(gram, picked.transpose(1, 2) @ targets.double()[..., None])[..., 0]
        left = targets.double() - (picked @ fitted[..., None])[..., 0]
    weights = targets.new_zeros(len(targets), len(directions))
    return weights.scatter(1, chosen, fitted.to(weights))


def parts(weights: Tensor) -> list[dict[str, list[float]]]:
    """Each vector's features and coefficients, largest first, as JSON values for a bank's details."""
    rows: list[dict[str, list[float]]] = []
    for row in weights.cpu().double():
        order = row.abs().argsort(descending=True, stable=True)[: int((row != 0).sum())]
        rows.append({"features": order.tolist(), "weights": row[order].tolist()})
    return rows
