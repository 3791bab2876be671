"""Settings of a discovery run, and the defaults that depend on a model's depth and residual norm.

Layer convention, used everywhere: layer i's *output* is the residual stream after block i (`hidden_states[i + 1]` in
Hugging Face terms). The steering vector is added to the output of block `source_layer`; activations are read at the
output of block `target_layer`. The published MELBO code reads the *input* of block t, so its "source 4, target 12"
is our source 4, target 11: see `from_published_layers`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from melbo.errors import ConfigError

Method = Literal["melbo", "dct", "power", "more-like", "sae-basis", "random", "imported"]
Optimizer = Literal["fast", "published"]
Variant = Literal["exponential", "linear", "projected", "quadratic"]
RadiusUnit = Literal["residual", "absolute", "auto"]
STEPS = {
    "fast": 40, "published": 150, "dct": 8, "power": 10, "more-like": 150, "sae-basis": 40, "random": 0, "imported": 0,
}  # fmt: skip
"""Default steps: of melbo by optimizer, of the others by method."""
PROJECTED = 32
"""Random output directions of dct's variant "projected"; it gives at most as many vectors."""
MAX_SEED = 2**32 - 1
"""Largest seed, and largest whole number in a config; every random generator takes it."""


_CHOICES = {
    "method": get_args(Method),
    "optimizer": get_args(Optimizer),
    "variant": get_args(Variant),
    "radius_unit": get_args(RadiusUnit),
}
_WHOLE = {"n_vectors": 1, "target_tokens": 1, "skip_tokens": 0, "sparsity": 1, "steps": 0, "seed": 0}
"""Fields that hold whole numbers, and the least of each."""


@dataclass(frozen=True)
class DiscoveryConfig:
    """How a bank is made. Layers left at None are resolved from the model's depth."""

    method: Method = "melbo"
    """"melbo" maximises displacement; "dct" and "power" are transcoding and power steering; "more-like" finds vectors
    with one vector's effect; "sae-basis" is melbo over sparse sums of an SAE's directions; "random" draws vectors of
    the same norm, the control for every claim; "imported" vectors came from another library's file."""
    optimizer: Optimizer = "fast"
    """Of melbo: "published" is AdamW on the sphere, "fast" orthogonalised gradient iteration."""
    variant: Variant = "exponential"
    """Of dct: which transcoder is fitted."""
    n_vectors: int = 128
    """How many vectors the bank holds."""
    source_layer: int | None = None
    """Block whose output the vector is added to; None: 0.25 of the depth."""
    target_layer: int | None = None
    """Block whose output is compared; None: 0.75 of the depth."""
    radius: float = 0.7
    """L2 norm R of each vector, in the unit below; unused where that is "auto"."""
    radius_unit: RadiusUnit = "residual"
    """"residual": multiples of the mean residual norm at the source layer; "absolute": activation units; "auto": where
    the slice's nonlinearity ratio is 0.5 (melbo/discovery/calibrate_radius.py)."""
    power: float = 2.0
    """p: how much large changes at single tokens count."""
    root: float = 1.0
    """q: the sum over tokens is raised to 1/q before the sum over prompts."""
    target_tokens: int = 2
    """How many of the last prompt tokens the target activations are read at."""
    skip_tokens: int = 0
    """How many prompt tokens after these are left out: 2 and 3 read the fifth and the fourth last."""
    steps: int | None = None
    """Optimiser steps or iterations; None: the method's default (STEPS)."""
    lr: float = 0.1
    """Of the published optimizer: Adam's per-coordinate step is lr * R / sqrt(d_model); a step moves a vector by about
    lr * R. The published runs lie between 0.011 and 0.065, with 300 to 1200 steps; at 0.1, 150 steps reach what 300 do
    (docs/log.md)."""
    orthogonal: bool = True
    """Keep all vectors mutually orthogonal, exactly (QR in fixed order)."""
    effect_penalty: float = 0.0
    """w of melbo: each vector maximises displacement / (1 + w * sum of squared cosines between its output and the
    others'), on each prompt, so that effects differ and not only vectors."""
    sparsity: int = 8
    """Of sae-basis: most features of an SAE that a vector is a sum of."""
    seed: int = 325
    """Seed of the random starting points."""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(map(repr, allowed))}.")
        for name in ("radius", "power", "root", "lr"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value!r}; it must be a finite number greater than 0.")
        penalty = self.effect_penalty
        if isinstance(penalty, bool) or not isinstance(penalty, (int, float)) or not 0 <= penalty < math.inf:
            raise ConfigError(f"effect_penalty is {self.effect_penalty!r}; it must be a finite number from 0.")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if name == "steps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SEED:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {least} to {MAX_SEED}.")
        if not isinstance(self.orthogonal, bool):
            raise ConfigError(f"orthogonal is {self.orthogonal!r}; it must be true or false.")
        if self.method == "dct" and self.variant == "projected" and self.n_vectors > PROJECTED:
            raise ConfigError(
                f"variant 'projected' gives at most {PROJECTED} vectors; {self.n_vectors} were asked for."
            )
        if not self.orthogonal and self.method in ("dct", "power", "more-like"):
            raise ConfigError(f"method {self.method!r} works with orthogonal vectors only; leave orthogonal on.")
        for name in ("source_layer", "target_layer"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigError(f"{name} is {value!r}; it must be a block number, or None for the default.")

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
        steps = self.steps
        if steps is None:
            steps = STEPS[self.optimizer if self.method == "melbo" else self.method]
        return replace(self, source_layer=source, target_layer=target, steps=steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DiscoveryConfig:
        """Inverse of `to_dict`; unknown names are an error."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)} in the discovery config.")
        return cls(**values)


def default_layers(n_layers: int) -> tuple[int, int]:
    """Source and target at 0.25 and 0.75 of the depth (the replication's rule of thumb), in our convention."""
    if n_layers < 2:
        raise ConfigError(f"the model has {n_layers} block(s); MELBO needs at least 2.")
    source = min(round(0.25 * n_layers), n_layers - 2)
    return source, max(source + 1, round(0.75 * n_layers) - 1)


def from_published_layers(source: int, target: int) -> tuple[int, int]:
    """Translate layer numbers of the published MELBO code to ours: (4, 12) there is (4, 11) here."""
    return source, target - 1
