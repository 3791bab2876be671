"""The displacement objective and the projections that keep vectors on the sphere and orthogonal. Pure functions."""

from __future__ import annotations

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


def orthonormalize(vectors: Tensor) -> Tensor:
    """Unit rows, each orthogonal to all rows before it: Gram-Schmidt in row order, by QR. [n, d_model], n <= d_model.

    Row 0 keeps its direction whatever follows, so a vector never depends on the ones after it.
    """
    exact = (vectors.cpu() if vectors.device.type == "mps" else vectors).double()  # MPS has no float64
    q, r = torch.linalg.qr(exact.T)  # q [d_model, n]
    sign = torch.where(torch.diagonal(r) < 0, -1.0, 1.0).to(q)
    return (q * sign).T.to(vectors)


def to_sphere(vectors: Tensor, radius: float, orthogonal: bool) -> Tensor:
    """Retract rows to norm `radius`, orthogonal to the rows before them if asked. [n, d_model]."""
    if orthogonal:
        return orthonormalize(vectors) * radius
    return torch.nn.functional.normalize(vectors, dim=-1) * radius


def project_gradient(gradient: Tensor, vectors: Tensor, orthogonal: bool) -> Tensor:
    """Gradient rows made tangent to the sphere and, if asked, orthogonal to earlier vectors. Both [n, d_model]."""
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    overlap = gradient @ unit.T  # [n, n]
    removed = torch.tril(overlap) if orthogonal else torch.diag(torch.diagonal(overlap))
    return gradient - removed @ unit
