"""The projections that keep vectors on the sphere and orthogonal. Pure functions."""

import torch
from torch import Tensor


def orthonormalize(vectors: Tensor) -> Tensor:
    """Unit rows, each orthogonal to all rows before it: Gram-Schmidt in row order, by QR. [n, d_model], n <= d_model.

    Row 0 keeps its direction whatever follows, so a vector never depends on the ones after it.
    """
    exact = (vectors.cpu() if vectors.device.type == "mps" else vectors).double()  # MPS has no float64
    q, r = torch.linalg.qr(exact.T)  # q [d_model, n]
    sign = torch.where(torch.diagonal(r) < 0, -1.0, 1.0).to(q)
    rows: Tensor = (q * sign).T
    return rows.to(vectors)


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
