"""Activating examples as a saved value: settings, and per vector and sign its examples and histogram."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from melbo.bank.result_file import ACTIVATING, FORMATS, Count, Extensible, FileKind, Result, Sign
from melbo.config import MAX_SEED
from melbo.errors import ConfigError, CorpusError
from melbo.inspect.max_activating.passages import WHERE, Where
from melbo.inspect.max_activating.top_examples import BINS

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
class Example(Extensible):
    """One place in the corpus."""

    value: float
    """Dot product of the centred activation and the unit direction."""
    cosine: float
    passage: Count
    """Number of the passage, from 0."""
    pieces: tuple[str, ...]
    """Text of the tokens around the place."""
    values: tuple[float, ...]
    """The dot product at each of them."""
    at: Count
    """Index of the place in `pieces`."""
    mark: str = ""
    """What the corpus says of the passage, such as its mode."""

    def __post_init__(self) -> None:
        if not self.at < len(self.pieces) == len(self.values):
            raise CorpusError("an example's place lies outside its text")

    @property
    def text(self) -> str:
        """The pieces as one."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Direction(Extensible):
    """One vector with one sign."""

    index: Count
    label: str
    sign: Sign
    spread: Annotated[float, Field(gt=0)]
    """Standard deviation of the values in the sample, the histogram's unit."""
    histogram: tuple[Count, ...]
    """Positions in each of BINS bins from -6 to 6 standard deviations; the ends hold what lies beyond."""
    examples: tuple[Example, ...]
    """Best first."""

    def __post_init__(self) -> None:
        if len(self.histogram) != BINS:
            raise CorpusError(f"a histogram of {len(self.histogram)} bins")

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
class ActivatingReport(Result):
    """Where in a corpus a bank's vectors are most active, beside random vectors."""

    file = FileKind(FORMATS[ACTIVATING], "report on activating examples", "melbo inspect activating")

    config: ActivatingConfig
    layer: Count
    """Layer whose activations were read."""
    corpus: str
    passages: Count
    tokens: Count
    positions: Count
    """Positions that counted."""
    skipped: Mapping[str, Count]
    """Pieces of the corpus that could not be used, by reason."""
    mean_norm: float
    """Norm of the mean activation that was subtracted."""
    typical_norm: float
    """Root mean square norm of the activations less the mean."""
    directions: tuple[Direction, ...]
    """Each vector with sign 1, then -1."""
    control: tuple[Direction, ...]
    """The same for random vectors."""

    def __post_init__(self) -> None:
        if not self.directions:
            raise CorpusError("it holds no direction")

    @property
    def notes(self) -> list[str]:
        """What a reader should know: pieces skipped, too few examples."""
        found = [f"{n} {reason} were skipped" for reason, n in sorted(self.skipped.items())]
        fewest = min(len(d.examples) for d in self.directions)
        if fewest < self.config.k:
            found.append(f"the corpus has only {fewest} different places for {self.config.k} examples")
        return found
