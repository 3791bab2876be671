"""Activating examples as a saved value: settings, and per vector and sign its examples and histogram."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from melbo.bank import BaseModel
from melbo.config import MAX_SEED
from melbo.errors import ConfigError, CorpusError
from melbo.interpret.passages import WHERE, Where
from melbo.interpret.result_file import read_result, write_result
from melbo.interpret.top_examples import BINS

FORMAT = "melbo-activating-1"
Site = Literal["effect", "vector"]
Rank = Literal["dot", "cosine"]


@dataclass(frozen=True)
class ActivatingConfig:
    """What an activation is, and how many examples are kept."""

    site: Site = "effect"
    """"vector": activations at the source layer against the vector itself; "effect": activations at `layer` against
    the change that the vector makes there on the bank's prompts, computed for each sign."""
    layer: int | None = None
    """Of the effect; None: the last block."""
    where: Where = "decision"
    """Positions that count: "all", a chat's last "answer", or the "decision", the last position before that answer.
    In plain text, all count."""
    rank: Rank = "dot"
    """Examples are ordered by the dot product with the unit direction, or by the cosine; both of the activation less
    the corpus's mean."""
    k: int = 20
    """Examples per vector and sign."""
    context: int = 24
    """Tokens shown on each side."""
    window: int = 256
    """Tokens of a row of plain text."""
    skip_tokens: int = 1
    """First tokens of each row that never count: an attention sink's activations mean nothing."""
    n_random: int = 16
    """Random vectors of the same norm, the control."""
    sample: int = 1024
    """Positions at the corpus's start from which mean and spread are taken."""
    scale: float = 1.0
    """Of the vector, for its effect."""
    batch_tokens: int = 8192
    """Tokens of one forward pass."""
    seed: int = 0
    """Of the random vectors."""

    def __post_init__(self) -> None:
        for name, allowed in (("site", get_args(Site)), ("where", WHERE), ("rank", get_args(Rank))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(map(repr, allowed))}.")
        least = {"k": 1, "context": 0, "window": 2, "skip_tokens": 0, "n_random": 0, "sample": 2, "batch_tokens": 1,
                 "seed": 0}  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_SEED:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {low} to {MAX_SEED}.")
        if self.skip_tokens >= self.window:
            raise ConfigError(f"skip_tokens is {self.skip_tokens}; it must be less than the window, {self.window}.")
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale is {self.scale!r}; it must be a finite number greater than 0.")


@dataclass(frozen=True)
class Example:
    """One place in the corpus."""

    value: float
    """Dot product of the centred activation and the unit direction."""
    cosine: float
    passage: int
    """Number of the passage, from 0."""
    pieces: tuple[str, ...]
    """Text of the tokens around the place."""
    values: tuple[float, ...]
    """The dot product at each of them."""
    at: int
    """Index of the place in `pieces`."""
    mark: str = ""
    """What the corpus says of the passage, such as its mode."""

    @property
    def text(self) -> str:
        """The pieces as one."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Direction:
    """One vector with one sign."""

    index: int
    label: str
    sign: int
    spread: float
    """Standard deviation of the values in the sample, the histogram's unit."""
    histogram: tuple[int, ...]
    """Positions in each of BINS bins from -6 to 6 standard deviations; the ends hold what lies beyond."""
    examples: tuple[Example, ...]
    """Best first."""

    @property
    def marks(self) -> list[tuple[str, int]]:
        """How many examples carry each mark, the most frequent first."""
        return Counter(e.mark for e in self.examples if e.mark).most_common()

    @property
    def leading_mark(self) -> str:
        """The mark of more examples than any other, or ""."""
        marks = self.marks
        return marks[0][0] if marks and (len(marks) == 1 or marks[0][1] > marks[1][1]) else ""


@dataclass(frozen=True)
class ActivatingReport:
    """Where in a corpus a bank's vectors are most active, beside random vectors."""

    model: BaseModel
    config: ActivatingConfig
    layer: int
    """Layer whose activations were read."""
    corpus: str
    passages: int
    tokens: int
    positions: int
    """Positions that counted."""
    skipped: dict[str, int]
    """Pieces of the corpus that could not be used, by reason."""
    mean_norm: float
    """Norm of the mean activation that was subtracted."""
    typical_norm: float
    """Root mean square norm of the activations less the mean."""
    directions: tuple[Direction, ...]
    """Each vector with sign 1, then -1."""
    control: tuple[Direction, ...]
    """The same for random vectors."""

    @property
    def notes(self) -> list[str]:
        """What a reader should know: pieces skipped, too few examples."""
        found = [f"{n} {reason} were skipped" for reason, n in sorted(self.skipped.items())]
        fewest = min(len(d.examples) for d in self.directions)
        if fewest < self.config.k:
            found.append(f"the corpus has only {fewest} different places for {self.config.k} examples")
        return found

    def save(self, path: Path) -> Path:
        """Write JSON."""
        return write_result(path, FORMAT, asdict(self))

    @classmethod
    def load(cls, path: Path) -> ActivatingReport:
        """Inverse of `save`.

        Raises:
            CorpusError: no such file, damaged, or of another format.
        """
        raw = read_result(path, FORMAT)
        try:
            _check_types(cls, raw)
            raw["model"], raw["config"] = BaseModel(**raw["model"]), ActivatingConfig(**raw["config"])
            for name in ("directions", "control"):
                raw[name] = tuple(_direction(d) for d in raw[name])
            raw["skipped"] = {str(reason): int(n) for reason, n in raw["skipped"].items()}
            if not raw["directions"]:
                raise ValueError("no direction")
            if not isinstance(raw["model"].id, str):
                raise TypeError("the model's name is no text")
            return cls(**raw)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ConfigError) as error:
            reason = " ".join(repr(error).split())[:200]
            raise CorpusError(f"{path} is damaged ({reason}); make it again with `melbo inspect`.") from error


_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "str": (str,), "float": (int, float)}


def _check_types(cls: type, raw: dict[str, Any]) -> None:
    """Raise TypeError where a number or text of the dataclass is of another type: a page would show it as it is."""
    for name, kinds in ((f.name, _TYPES.get(str(f.type))) for f in fields(cls)):
        if kinds is not None and name in raw and type(raw[name]) not in kinds:
            raise TypeError(f"{name} is {repr(raw[name])[:60]}")


def _direction(raw: dict[str, Any]) -> Direction:
    _check_types(Direction, raw)
    for example in raw["examples"]:
        _check_types(Example, example)
    if raw["sign"] not in (1, -1) or raw["spread"] <= 0:
        raise ValueError("a direction has no sign of 1 or -1, or no spread")
    examples = tuple(
        Example(**{**e, "pieces": tuple(map(str, e["pieces"])), "values": tuple(map(float, e["values"]))})
        for e in raw["examples"]
    )
    if not all(0 <= e.at < len(e.pieces) == len(e.values) for e in examples):
        raise ValueError("an example's place lies outside its text")
    histogram = tuple(map(int, raw["histogram"]))
    if len(histogram) != BINS:
        raise ValueError(f"a histogram of {len(histogram)} bins")
    return Direction(**{**raw, "label": str(raw["label"]), "histogram": histogram, "examples": examples})
