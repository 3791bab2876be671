"""Settings of an R sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from melbo.config import DiscoveryConfig
from melbo.errors import ConfigError
from melbo.runs.settings import LARGEST, Positive, Settings
from melbo.steering.generate import Sampling

Unit = Literal["residual", "absolute"]
RADII = tuple(round(0.30 + 0.05 * i, 2) for i in range(15))
"""The replication's: 0.30 to 1.00."""
WIDE = (*RADII, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""The replication's wide range, up to 32."""
MAX_RADII = 200


@dataclass(frozen=True)
class SweepConfig(Settings):
    """What to sweep."""

    base: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    """How to find vectors, such as a bank's own config. Its n_vectors and radius are not used."""
    radii: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=MAX_RADII)] = RADII
    """R, ascending."""
    unit: Unit = "residual"
    """Unit of the radii: "residual" (multiples of the mean residual norm) or "absolute"."""
    n_vectors: Annotated[int, Field(ge=2, le=LARGEST)] = 12
    """Number of vectors at each R, and of random ones of the same norm."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=96))
    """Of the answers."""

    def check(self) -> None:
        """Check what concerns more than one field; raises ConfigError."""
        if any(b <= a for a, b in zip(self.radii, self.radii[1:], strict=False)):
            raise ConfigError("the radii are not in ascending order, or one comes twice; sort them.")
        if self.base.method == "more-like":
            raise ConfigError(
                "method 'more-like' starts from one vector and cannot be swept; sweep the bank that the vector is from."
            )

    def resolve(self, n_layers: int, d_model: int) -> SweepConfig:
        """The same, with the base's layers and steps filled in and checked for a model of that size.

        The fields of the base that a sweep does not use (n_vectors, radius and unit) get fixed values, so that banks
        that differ only in them share a sweep.
        """
        base = replace(self.base, n_vectors=self.n_vectors, radius=1.0, radius_unit="residual")
        return replace(self, base=base.resolve(n_layers, d_model))


def parse_radii(text: str) -> tuple[float, ...]:
    """Radii from text: "0.3:1.0:0.05" (first, last, step), "0.5,0.7,1", "default" or "wide".

    Raises:
        ConfigError: it is none of these.
    """
    named = {"default": RADII, "wide": WIDE}
    if text.strip().lower() in named:
        return named[text.strip().lower()]
    try:
        if ":" not in text:
            return tuple(sorted({float(part) for part in text.split(",")}))
        first, last, step = (float(part) for part in text.split(":"))
        count = math.floor((last - first) / step + 1e-6) + 1 if step > 0 else 0
        if not 1 <= count <= MAX_RADII:
            raise ValueError
        return tuple(round(first + i * step, 9) for i in range(count))
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f'radii are {text!r}; give "0.3:1.0:0.05" (first, last, step; at most {MAX_RADII}), a list such as '
            '"0.5,0.7,1", "default" or "wide".'
        ) from error
