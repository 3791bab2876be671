"""The displacement objective and the overlap of effects. Pure functions."""

import torch
from torch import Tensor


def displacement(change: Tensor, power: float, root: float) -> Tensor:
    """(sum over tokens of ||change||_2^p)^(1/q), one number per vector.

    Args:
        change: change of the target activations [n, tokens, d_model]; the norm is taken over d_model.
        power: p > 0.
        root: q > 0.

    Returns:
        [n]. Source: Mack & Turner 2024, whose code takes the norm over the token axis instead (equal for p = 2).
    """
    # clamp_min keeps the gradient finite where a change is exactly zero
    norms = change.square().sum(dim=-1).clamp_min(1e-12).sqrt()  # [n, tokens]
    return norms.pow(power).sum(dim=-1).pow(1.0 / root)


def effect_overlap(effects: Tensor, others: Tensor, first: int) -> Tensor:
    """Per row, the sum of its squared cosines with all rows of `others` but its own; one number per row, [rows].

    Args:
        effects: mean output changes [rows, d_model], differentiable; row i stands for row first + i of `others`.
        others: what all vectors' outputs were before, [n, d_model].
    """
    unit = torch.nn.functional.normalize(effects, dim=-1)
    fixed = torch.nn.functional.normalize(others.to(effects), dim=-1)
    overlap = (unit @ fixed.T).square()  # [rows, n]
    own = torch.arange(first, first + len(effects), device=effects.device)
    return overlap.sum(dim=1) - overlap.gather(1, own[:, None])[:, 0]
