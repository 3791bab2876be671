"""Settings of a discovery run, and the defaults that depend on a model's depth and residual norm.

Layer convention, used everywhere: layer i's *output* is the residual stream after block i (`hidden_states[i + 1]` in
Hugging Face terms). The steering vector is added to the output of block `source_layer`; activations are read at the
output of block `target_layer`. The published MELBO code reads the *input* of block t, so its "source 4, target 12"
is our source 4, target 11: see `from_published_layers`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from melbo.errors import ConfigError
from melbo.runs.settings import LARGEST, Positive, Settings, Size, Unset, Whole

Method = Literal["melbo", "dct", "power", "more-like", "sae-basis", "random", "imported"]
Optimizer = Literal["fast", "published"]
Variant = Literal["exponential", "linear", "projected", "quadratic"]
RadiusUnit = Literal["residual", "absolute", "auto"]
STEPS = {
    "fast": 40,
    "published": 150,
    "dct": 8,
    "power": 10,
    "more-like": 150,
    "sae-basis": 40,
    "random": 0,
    "imported": 0,
}
"""Default steps: of melbo by optimizer, of the others by method."""
PROJECTED = 32
"""Random output directions of dct's variant "projected"; it gives at most as many vectors."""
MAX_SEED = LARGEST
SOURCE, TARGET = 0.25, 0.75
"""Default layers as shares of the depth."""
SOURCE_DEFAULT, TARGET_DEFAULT = f"{SOURCE:g} of the depth", f"{TARGET:g} of the depth"
STEPS_DEFAULT = ", ".join(f"{steps} {name}" for name, steps in STEPS.items() if steps)


@dataclass(frozen=True)
class DiscoveryConfig(Settings):
    """How a bank is made. Layers left at None are resolved from the model's depth."""

    method: Method = "melbo"
    """How vectors are found.

    "melbo" maximises displacement; "dct" and "power" are transcoding and power steering; "more-like" finds vectors
    with one vector's effect; "sae-basis" is melbo over sparse sums of an SAE's directions; "random" draws vectors of
    the same norm, the control for every claim; "imported" vectors came from another library's file."""
    optimizer: Optimizer = "fast"
    """Of melbo: "published" is AdamW on the sphere, "fast" orthogonalised gradient iteration."""
    variant: Variant = "exponential"
    """Of dct: which transcoder is fitted."""
    n_vectors: Size = 128
    """How many vectors to find."""
    source_layer: Annotated[int | None, Unset(SOURCE_DEFAULT)] = None
    """Block whose output the vector is added to."""
    target_layer: Annotated[int | None, Unset(TARGET_DEFAULT)] = None
    """Block whose output is compared."""
    radius: Positive = 0.5
    """Norm R of each vector, in mean residual norms unless the unit is "absolute".

    Where the unit is "auto", what is taken if the calibration finds none."""
    radius_unit: RadiusUnit = "auto"
    """Of R: "residual", multiples of the mean residual norm at the source layer; "absolute", activation units; or
    "auto", chosen for the model: where the slice's nonlinearity ratio is 0.5, less if the answers break there.

    See melbo/discovery/choose_radius.py."""
    power: Positive = 2.0
    """Exponent p of the objective: how much large changes at single tokens count."""
    root: Positive = 1.0
    """Root q of the objective: the sum over tokens is raised to 1/q before the sum over prompts."""
    target_tokens: Size = 2
    """How many of the last prompt tokens are compared."""
    skip_tokens: Whole = 0
    """How many prompt tokens after these are left out: 2 and 3 compare the fifth and the fourth last."""
    steps: Annotated[Whole | None, Unset(STEPS_DEFAULT)] = None
    """Steps or iterations."""
    lr: Positive = 0.1
    """Of the published optimizer: step size in units of R.

    Adam's per-coordinate step is lr * R / sqrt(d_model); a step moves a vector by about lr * R. The published runs lie
    between 0.011 and 0.065, with 300 to 1200 steps; at 0.1, 150 steps reach what 300 do (the log has the figures)."""
    orthogonal: bool = True
    """Keep all vectors mutually orthogonal.

    Exactly: by QR in fixed order."""
    effect_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Of melbo: how much equal effects count against a vector.

    w: each vector maximises displacement / (1 + w * sum of squared cosines between its output and the others'), on
    each prompt, so that effects differ and not only vectors."""
    sparsity: Size = 8
    """Of sae-basis: most features of an SAE that a vector is a sum of."""
    seed: Whole = 325
    """Seed of the random starting points."""

    def check(self) -> None:
        """What takes more than one field."""
        if self.method == "dct" and self.variant == "projected" and self.n_vectors > PROJECTED:
            raise ConfigError(
                f"variant 'projected' gives at most {PROJECTED} vectors; {self.n_vectors} were asked for."
            )
        if not self.orthogonal and self.method in ("dct", "power", "more-like"):
            raise ConfigError(f"method {self.method!r} works with orthogonal vectors only; leave orthogonal on.")

    def resolve(self, n_layers: int, d_model: int) -> DiscoveryConfig:
        """The same settings with layers and steps filled in, checked against a model of that depth and width."""
        source, target = default_layers(n_layers)
        source = source if self.source_layer is None else self.source_layer
        target = target if self.target_layer is None else self.target_layer
        if not 0 <= source < target < n_layers:
            raise ConfigError(
                f"source layer {source} and target layer {target} do not fit a model of {n_layers} blocks; "
                f"choose 0 <= source < target <= {n_layers - 1}."
            )
        if self.orthogonal and self.n_vectors > d_model:
            raise ConfigError(
                f"{self.n_vectors} orthogonal vectors do not fit in d_model = {d_model}; "
                f"ask for at most {d_model}, or switch orthogonality off."
            )
        steps = default_steps(self) if self.steps is None else self.steps
        return replace(self, source_layer=source, target_layer=target, steps=steps)


def default_steps(config: DiscoveryConfig) -> int:
    """Steps of the method, or of the optimizer where there is a choice."""
    return STEPS[config.optimizer if config.method == "melbo" else config.method]


def default_layers(n_layers: int) -> tuple[int, int]:
    """Source and target at 0.25 and 0.75 of the depth (the replication's rule of thumb), in our convention.

    Raises:
        ConfigError: the model has fewer than 2 blocks.
    """
    if n_layers < 2:
        raise ConfigError(f"the model has {n_layers} block(s); MELBO needs at least 2.")
    source = min(round(SOURCE * n_layers), n_layers - 2)
    return source, max(source + 1, round(TARGET * n_layers) - 1)


def from_published_layers(source: int, target: int) -> tuple[int, int]:
    """Translate layer numbers of the published MELBO code to ours: (4, 12) there is (4, 11) here."""
    return source, target - 1
