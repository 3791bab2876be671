"""What a visitor has chosen in the Steer tab, checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from melbo.app.choices import LARGEST_SCALE
from melbo.errors import ConfigError
from melbo.prompts import DEFAULT_SYSTEM
from melbo.steering.generate import Sampling
from melbo.steering.hooks import POSITIONS, Positions

MAX_MIX = 4
"""Most vectors at once."""
MAX_INSTRUCTION = 1_000
"""Characters."""

Side = Literal["vector", "random", "prompt"]
SIDES: tuple[Side, ...] = ("vector", "random", "prompt")
"""What the right pane shows: the vectors, a random vector of the same norm, or an instruction without any vector."""


@dataclass(frozen=True)
class Settings:
    """What a visitor has chosen."""

    mix: tuple[tuple[int, float], ...]
    """(vector, scale), 1 to 4; scales from -LARGEST_SCALE to LARGEST_SCALE."""
    side: Side = "vector"
    instruction: str = ""
    """Follows the system prompt where `side` is "prompt"."""
    system: str = DEFAULT_SYSTEM
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 96
    seed: int = 0
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if not 1 <= len(self.mix) <= MAX_MIX:
            raise ConfigError(f"{len(self.mix)} vectors are chosen; choose 1 to {MAX_MIX}.")
        for vector, scale in self.mix:
            _whole("vector", vector)
            _number("scale", scale)
            if abs(scale) > LARGEST_SCALE:
                raise ConfigError(f"scale is {scale}; choose -{LARGEST_SCALE:g} to {LARGEST_SCALE:g}.")
        if len({vector for vector, _ in self.mix}) < len(self.mix):
            raise ConfigError("a vector is chosen twice; choose different ones, or one with a larger scale.")
        _whole("max new tokens", self.max_new_tokens)
        _whole("seed", self.seed)
        _number("temperature", self.temperature)
        _number("top-p", self.top_p)
        for name in ("system", "instruction"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} is no text; write some, or leave it empty.")
        if len(self.instruction) > MAX_INSTRUCTION:
            raise ConfigError(f"the instruction has more than {MAX_INSTRUCTION:,} characters; shorten it.")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max new tokens is {self.max_new_tokens}; choose at least 1.")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; choose 0 to {2**31 - 1}.")
        if self.positions not in POSITIONS:
            raise ConfigError(f"positions is {self.positions!r}; choose one of {', '.join(POSITIONS)}.")
        if self.side not in SIDES:
            raise ConfigError(f"the right side is {self.side!r}; choose one of {', '.join(SIDES)}.")
        self.sampling()

    def sampling(self) -> Sampling:
        """The part that the generator reads."""
        return Sampling(self.max_new_tokens, float(self.temperature), float(self.top_p), self.seed)

    def right_system(self) -> str:
        """System prompt of the right side."""
        return " ".join(filter(None, [self.system, self.instruction.strip()])) if self.side == "prompt" else self.system


def read_settings(values: Sequence[Any]) -> Settings:
    """Settings from the page's components: vector and scale of each place, then the other fields in order.

    A place without a vector counts as empty.

    Raises:
        ConfigError: a value is missing or out of range.
    """
    places, rest = values[: 2 * MAX_MIX], values[2 * MAX_MIX :]
    mix = tuple((v, s) for v, s in zip(places[::2], places[1::2], strict=True) if v is not None)
    side, instruction, system, temperature, top_p, tokens, seed, positions = rest
    tokens = int(tokens) if isinstance(tokens, float) and tokens.is_integer() else tokens
    return Settings(mix, side, instruction or "", system or "", temperature, top_p, tokens, seed, positions)


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} is {value!r}; choose a whole number.")


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}; choose a number.")
