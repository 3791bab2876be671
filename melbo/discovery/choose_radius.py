"""Choose R: as the config says, or for the model.

"auto":
1. R is where the slice's nonlinearity ratio reaches 0.5 (`melbo.discovery.calibrate_radius`); a model whose slice stays
   linear gets the config's own R, as a fallback.
2. A few vectors are found at that R, in half of the steps, and answer prompts. Where too many answers break, R shrinks
   to the largest share of itself at which they do not (`melbo.discovery.usable_scale`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from melbo.config import STEPS, DiscoveryConfig
from melbo.discovery.calibrate_radius import DIRECTIONS, RATIO, SMALLEST, Calibration, calibrate
from melbo.discovery.methods.displacement import maximize
from melbo.discovery.problem import Problem
from melbo.discovery.usable_scale import PROMPTS, SHARE, VECTORS, UsableScale, probes, scale_of, usable_scale
from melbo.errors import ConfigError
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.checkpoint import Run
from melbo.steering.random_vectors import random_vectors

STEPS_OF_PILOT = STEPS["fast"] // 2


@dataclass(frozen=True)
class CoherentRadius:
    """Shrinks an R at which the answers break."""

    loaded: LoadedModel
    problem: Problem
    config: DiscoveryConfig
    prompts: Sequence[Sequence[Message]]
    coherence_scale: CoherenceScale | None = None
    """None: calibrated on the model."""

    def shrink(self, radius: float) -> UsableScale | None:
        """The share of R, at most 1, at which the answers of a few vectors stay coherent; None: this model's answers
        cannot be told from broken ones.
        """
        asked = probes(self.prompts)
        scale = self.coherence_scale or scale_of(self.loaded, asked, self.config.seed)
        if scale is None:
            return None
        d_model = self.loaded.d_model
        pilot = replace(
            self.config, method="melbo", optimizer="fast", effect_penalty=0.0, orthogonal=True,
            n_vectors=min(VECTORS, d_model), steps=STEPS_OF_PILOT, radius=radius, radius_unit="absolute",
        )  # fmt: skip
        start = random_vectors(pilot.n_vectors, d_model, radius, True, pilot.seed).to(self.loaded.device)
        vectors = maximize(lambda v, effects: self.problem.evaluate(v, others=effects), start, radius, pilot, Run())
        assert self.config.source_layer is not None
        return usable_scale(self.loaded, vectors.cpu(), self.config.source_layer, asked[:PROMPTS], scale, most=1.0)


def choose_radius(
    problem: Problem, config: DiscoveryConfig, norm: float, run: Run, coherent: CoherentRadius | None = None
) -> tuple[float, dict[str, Any]]:
    """R in activation units, and, where it was chosen here, how; both travel in the run's checkpoints.

    Args:
        norm: mean residual norm at the source layer.
        coherent: with unit "auto", shrinks an R at which answers break; None: they are not looked at.

    Raises:
        ConfigError: R is absurdly small or large for this model.
    """
    if config.radius_unit == "auto":
        if "kept.radius" not in run.kept:
            _choose(problem, config, norm, run, coherent)
        kept = run.kept
        chosen = _how(float(kept["kept.first"]), float(kept["kept.radius"]) / norm, kept["kept.pilot"].tolist())
        curve = kept["kept.curve"].tolist()
        return float(kept["kept.radius"]), {"calibration": curve, "radius_choice": chosen}
    radius = config.radius * norm if config.radius_unit == "residual" else config.radius
    if not 1e-6 < radius / norm < 1e6:
        raise ConfigError(
            f"the radius is {radius:.3g}, {radius / norm:.3g} times the mean residual norm; "
            "useful values lie between 0.01 and 100 times that norm."
        )
    return radius, {}


def calibrated(problem: Problem, seed: int, norm: float) -> Calibration:
    """R where the slice's nonlinearity ratio reaches RATIO, along random directions of this seed.

    Raises:
        ConfigError: it is not reached in the range of the search.
    """
    source = problem.slices[0].source
    directions = random_vectors(DIRECTIONS, source.shape[-1], 1.0, False, seed).to(source.device)
    return calibrate(problem, directions, norm, smallest=max(SMALLEST, 16 * torch.finfo(source.dtype).eps))


def _choose(problem: Problem, config: DiscoveryConfig, norm: float, run: Run, coherent: CoherentRadius | None) -> None:
    """Put R, and what it was chosen by, into the run: "kept.first" is R by the nonlinearity, 0 for the fallback."""
    try:
        found = calibrated(problem, config.seed, norm)
        first, radius, curve = found.radius / norm, found.radius, found.curve
    except ConfigError:
        first, radius, curve = 0.0, config.radius * norm, ()
    usable = coherent.shrink(radius) if coherent is not None else None
    run.kept["kept.first"] = torch.tensor(first, dtype=torch.float64)
    run.kept["kept.radius"] = torch.tensor([radius * (usable.largest if usable else 1.0)], dtype=torch.float64)
    run.kept["kept.curve"] = torch.tensor(curve, dtype=torch.float64).reshape(-1, 2)
    run.kept["kept.pilot"] = torch.tensor(usable.curve if usable else (), dtype=torch.float64).reshape(-1, 2)


def _how(first: float, radius: float, pilot: list[list[float]]) -> dict[str, Any]:
    """How R was chosen, as JSON values.

    Args:
        first: R by the nonlinearity, 0 where there is none, and `radius`, both in mean residual norms.
        pilot: pairs (share of the first R, share of coherent answers).
    """
    reason = f"R {radius:.3g}" if first == 0 else f"R {first:.3g}, where the nonlinearity ratio is {RATIO:g}"
    if first == 0:
        reason += ", the fallback: the nonlinearity ratio never reaches the threshold"
    at_first = next((coherent for scale, coherent in pilot if scale == 1), None)
    if at_first is None:
        reason += "; the model's answers cannot be told from broken ones, so it was not lowered"
    elif at_first >= SHARE:
        reason += f"; {at_first:.0%} of a few vectors' answers are coherent there"
    else:
        reason += (
            f"; only {at_first:.0%} of a few vectors' answers are coherent there, so it was lowered to {radius:.3g}"
        )
    by = "coherence" if at_first is not None and at_first < SHARE else "nonlinearity" if first else "fallback"
    return {"by": by, "reason": reason, "pilot": pilot}
