"""Settings of a search for rank-1 adapters; layers are counted as in `melbo.config`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from melbo.config import SOURCE_DEFAULT, TARGET_DEFAULT, default_layers
from melbo.errors import ConfigError
from melbo.runs.settings import Positive, Settings, Size, Unset, Whole

AdapterKind = Literal["attention", "mlp"]
AdapterRadiusUnit = Literal["residual", "absolute"]


@dataclass(frozen=True)
class AdapterConfig(Settings):
    """How adapters are found. Layers left at None are resolved from the model's depth."""

    n_adapters: Size = 16
    """How many adapters to find."""
    kind: AdapterKind = "attention"
    """Which out-projection of a block is adapted."""
    first_layer: Annotated[int | None, Unset(SOURCE_DEFAULT)] = None
    """First adapted block."""
    last_layer: Annotated[int | None, Unset("the block before the target")] = None
    """Last adapted block."""
    target_layer: Annotated[int | None, Unset(TARGET_DEFAULT)] = None
    """Block whose output is compared."""
    radius: Positive = 0.7
    """Norm R of an adapter's b over all layers, in the unit below."""
    radius_unit: AdapterRadiusUnit = "residual"
    """Of R: "residual", by what it writes, in mean residual norms; or "absolute", as it is.

    "residual" is multiples of r / x, r the mean residual norm where the band begins and x the mean norm of the adapted
    modules' inputs, so that an a along its input writes R in residual norms."""
    target_tokens: Size = 2
    """How many of the last prompt tokens are compared."""
    steps: Whole = 24
    """Iterations, one forward and backward pass each: b and a in turn."""
    seed: Whole = 325
    """Seed of the random starting points."""
    orthogonal: bool = True
    """Keep the b of all adapters mutually orthogonal, over all layers together."""

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
