"""The control: random directions of the same norm, orthogonal where the bank is."""

import torch
from torch import Tensor

from melbo.steering.sphere import to_sphere


def control_vectors(n: int, d_model: int, radius: float, orthogonal: bool, seed: int) -> Tensor:
    """The control of a bank trained with `seed`: random directions that share nothing with its starting points."""
    return random_vectors(n, d_model, radius, orthogonal, control_seed(seed))


def control_seed(seed: int) -> int:
    """Seed of the control of a bank trained with `seed`."""
    return (seed + 2**31) % 2**32


def random_vectors(n: int, d_model: int, radius: float, orthogonal: bool, seed: int) -> Tensor:
    """N random directions of norm `radius`, [n, d_model] float32 on CPU; the same for the same seed everywhere.

    Drawn one after another, so that the first k vectors do not depend on n.
    """
    generator = torch.Generator().manual_seed(seed)
    start = [torch.randn(d_model, generator=generator) for _ in range(n)]
    return to_sphere(torch.stack(start), radius, orthogonal)
