"""Settings of a search for rank-1 adapters; layers are counted as in `melbo.config`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from melbo.config import MAX_SEED, default_layers
from melbo.errors import ConfigError

AdapterKind = Literal["attention", "mlp"]
AdapterRadiusUnit = Literal["residual", "absolute"]


@dataclass(frozen=True)
class AdapterConfig:
    """How adapters are found. Layers left at None are resolved from the model's depth."""

    n_adapters: int = 16
    """How many."""
    kind: AdapterKind = "attention"
    """Which out-projection of a block is adapted."""
    first_layer: int | None = None
    """First adapted block; None: 0.25 of the depth."""
    last_layer: int | None = None
    """Last adapted block; None: the one before the target."""
    target_layer: int | None = None
    """Block whose output is compared; None: 0.75 of the depth."""
    radius: float = 0.7
    """R, the norm of b over all layers, in the unit below."""
    radius_unit: AdapterRadiusUnit = "residual"
    """"residual": multiples of r / x, r the mean residual norm where the band begins and x the mean norm of the adapted
    modules' inputs, so that an a along its input writes R in residual norms; "absolute": as it is."""
    target_tokens: int = 2
    """How many of the last prompt tokens the target activations are read at."""
    steps: int = 24
    """Iterations, one forward and backward pass each: b and a in turn."""
    seed: int = 325
    """Seed of the random starting points."""
    orthogonal: bool = True
    """Keep the b of all adapters mutually orthogonal, over all layers together."""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", ("attention", "mlp")), ("radius_unit", ("residual", "absolute"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(map(repr, allowed))}.")
        if type(self.radius) not in (int, float) or not 0 < self.radius < math.inf:
            raise ConfigError(f"radius is {self.radius!r}; it must be a finite number greater than 0.")
        for name, least in (("n_adapters", 1), ("target_tokens", 1), ("steps", 0), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= MAX_SEED:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {least} to {MAX_SEED}.")
        if not isinstance(self.orthogonal, bool):
            raise ConfigError(f"orthogonal is {self.orthogonal!r}; it must be true or false.")
        for name in ("first_layer", "last_layer", "target_layer"):
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise ConfigError(f"{name} is {value!r}; it must be a block number, or None for the default.")

    def resolve(self, n_layers: int, d_model: int) -> AdapterConfig:
        """The same settings with the layers filled in, checked against a model of that depth and width."""
        first, target = default_layers(n_layers)
        first = first if self.first_layer is None else self.first_layer
        target = target if self.target_layer is None else self.target_layer
        last = target - 1 if self.last_layer is None else self.last_layer
        if not 0 <= first <= last < target < n_layers:
            raise ConfigError(
                f"blocks {first} to {last} and target layer {target} do not fit a model of {n_layers} blocks; "
                f"choose 0 <= first <= last < target <= {n_layers - 1}."
            )
        most = (last - first + 1) * d_model
        if self.orthogonal and self.n_adapters > most:
            raise ConfigError(
                f"{self.n_adapters} orthogonal adapters do not fit in {last - first + 1} blocks of d_model {d_model}; "
                f"ask for at most {most}, or switch orthogonality off."
            )
        return replace(self, first_layer=first, last_layer=last, target_layer=target)

    @property
    def layers(self) -> range:
        """The adapted blocks of a resolved config."""
        assert self.first_layer is not None and self.last_layer is not None
        return range(self.first_layer, self.last_layer + 1)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """Inverse of `dataclasses.asdict`; unknown names are an error."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)} in the adapter config.")
        return cls(**values)
