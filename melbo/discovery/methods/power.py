"""Power steering: the directions that move the target most to first order, by block power iteration on J'J at zero.

Ayyub 2026. J is the derivative of all target tokens' activations; each step applies it forward and backward to all
vectors at once and makes them orthogonal again, so that they come to span J's first right singular vectors; a rotation
at the end separates those.
"""

import torch
from torch import Tensor

from melbo.config import DiscoveryConfig
from melbo.discovery.problem import Problem, check_finite
from melbo.runs.checkpoint import Run
from melbo.steering.sphere import orthonormalize


def find(problem: Problem, start: Tensor, radius: float, config: DiscoveryConfig, run: Run) -> tuple[Tensor, Tensor]:
    """Vectors [n, d_model] of norm `radius` and their singular values [n], largest first."""
    first, saved = run.restore()
    unit = saved["vectors"].to(start) if saved else orthonormalize(start)
    for step in range(first, config.steps or 0):
        product, stretch = problem.gauss_newton(unit)
        check_finite(step, gradient=product)
        unit = orthonormalize(product)
        run.step(step + 1, config.steps or 0, float(stretch.mean()), {"vectors": unit})
    product, _ = problem.gauss_newton(unit)
    values, rotation = torch.linalg.eigh((unit @ product.T).double())  # of J'J within the span (Rayleigh-Ritz)
    turned = orthonormalize(rotation.T.flip(0).to(unit) @ unit)
    return turned * radius, values.flip(0).clamp_min(0).sqrt().to(unit)
