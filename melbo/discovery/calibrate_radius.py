"""Choose R: where the slice stops being linear.

Mack & Turner 2024 (DCT): for random unit directions v, the nonlinearity ratio
  rho(R) = sqrt(mean over v of ||D(R v) - R J v||^2 / ||R J v||^2),
D the change of the target activations (mean over target tokens and prompts) and J its derivative at zero, grows from 0;
R is where it reaches 0.5. Below, steering is a linear nudge; far above, the model breaks.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.discovery.problem import Problem
from melbo.errors import ConfigError

RATIO = 0.5
DIRECTIONS = 30
SMALLEST, LARGEST = 1e-3, 64.0
"""Range searched for R, in mean residual norms."""
BROKEN = 1e6
"""Stands for a ratio that is not finite: the activations overflow."""


@dataclass(frozen=True)
class Calibration:
    """The chosen R and the curve that it was read from."""

    radius: float
    """R in activation units."""
    curve: tuple[tuple[float, float], ...]
    """Pairs (R in mean residual norms, nonlinearity ratio), by R."""


def calibrate(
    problem: Problem, directions: Tensor, norm: float, ratio: float = RATIO, smallest: float = SMALLEST
) -> Calibration:
    """Find R.

    Args:
        directions: unit vectors [n, d_model].
        norm: mean residual norm at the source layer.
        ratio: nonlinearity ratio to reach.
        smallest: least R to try, in mean residual norms; in half precision, smaller disturbances are rounded away.

    Raises:
        ConfigError: the ratio is not reached between `smallest` and 64 mean residual norms.
    """
    slope = problem.push_forward(torch.zeros_like(directions), directions)
    seen: dict[float, float] = {}

    def excess(log_radius: float) -> float:
        radius = math.exp(log_radius) * norm
        straight = radius * slope
        bent = problem.change(radius * directions) - straight
        share = bent.square().sum(dim=-1) / straight.square().sum(dim=-1).clamp_min(1e-30)
        found = float(share.mean().sqrt())
        seen[math.exp(log_radius)] = found if math.isfinite(found) else BROKEN
        return seen[math.exp(log_radius)] - ratio

    from scipy.optimize import brentq  # half a second, and nothing else here needs it

    low = high = math.log(smallest)
    while excess(high) < 0:  # the first crossing, by steps of a factor of 2
        low, high = high, high + math.log(2)
        if high > math.log(2 * LARGEST):
            raise ConfigError(
                f"the nonlinearity ratio stays below {ratio} up to {LARGEST:g} mean residual norms; "
                "give a radius, such as 0.7."
            )
    if high == low:
        raise ConfigError(
            f"the nonlinearity ratio is above {ratio} already at {smallest:g} mean residual norms; "
            "give a radius, such as 0.7."
        )
    found = math.exp(brentq(excess, low, high, xtol=1e-3))
    return Calibration(found * norm, tuple(sorted(seen.items())))
