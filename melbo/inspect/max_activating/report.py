"""Activating examples: settings, and per vector and sign its examples and histogram; saved, as text, and as a page."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from melbo.bank.result_file import ACTIVATING, FORMATS, Count, Extensible, FileKind, Result, Sign
from melbo.errors import ConfigError, CorpusError
from melbo.inspect.max_activating.passages import Where
from melbo.inspect.max_activating.top_examples import BINS
from melbo.runs.settings import LARGEST, Positive, Settings, Size, Unset, Whole
from melbo.runs.templates import templates

Site = Literal["effect", "vector"]
Rank = Literal["dot", "cosine"]
_TEMPLATE = templates(Path(__file__).parent).get_template("page.html.jinja")


@dataclass(frozen=True)
class ActivatingConfig(Settings):
    """What an activation is, and how many examples are kept."""

    site: Site = "effect"
    """What activations are compared with: the "effect" at a later layer, or the "vector" itself.

    "vector": activations at the source layer against the vector; "effect": activations at `layer` against the change
    that the vector makes there on the bank's prompts, computed for each sign."""
    layer: Annotated[int | None, Unset("the last block")] = None
    """Layer of the effect."""
    where: Where = "decision"
    """Positions that count: "all", a chat's last "answer", or the "decision", just before that answer.

    In plain text, all count."""
    rank: Rank = "dot"
    """What examples are ordered by: "dot" product or "cosine".

    With the unit direction, both of the activation less the corpus's mean."""
    k: Size = 20
    """Examples per vector and sign."""
    context: Whole = 24
    """Tokens shown on each side."""
    window: Annotated[int, Field(ge=2, le=LARGEST)] = 256
    """Tokens of a row of plain text."""
    skip_tokens: Whole = 1
    """First tokens of each row that never count: an attention sink's activations mean nothing."""
    n_random: Whole = 16
    """Random vectors of the same norm, the control."""
    sample: Annotated[int, Field(ge=2, le=LARGEST)] = 1024
    """Positions at the corpus's start from which mean and spread are taken."""
    scale: Positive = 1.0
    """Of the vector, for its effect."""
    batch_tokens: Size = 8192
    """Tokens of one forward pass."""
    seed: Whole = 0
    """Of the random vectors."""

    def check(self) -> None:
        """What takes more than one field."""
        if self.skip_tokens >= self.window:
            raise ConfigError(f"skip_tokens is {self.skip_tokens}; it must be less than the window, {self.window}.")


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


def table(report: ActivatingReport, index: int | None = None, n: int = 3) -> str:
    """Head lines; then per vector and sign its marks and its n best examples.

    Args:
        index: one vector only; None: all.
    """
    c = report.config
    what = "their effects" if c.site == "effect" else "the vectors"
    random = best_values(report.control)
    lines = [
        f"activating examples for {report.model.id}, layer {report.layer}: {what} against {report.corpus}",
        f"{report.passages} passages, {report.tokens} tokens, {report.positions} positions ({c.where}), k = {c.k}, "
        f"by {c.rank}; values in units of each direction's spread",
        *report.notes,
    ]
    if random:
        lines.append(f"{len(report.control)} random directions: best value {min(random):.1f} to {max(random):.1f}")
    chosen = [d for d in report.directions if index is None or d.index == index]
    for direction in chosen:
        lines += ["", _head(direction), *(f"  {_line(e, direction)}" for e in direction.examples[:n])]
    return "\n".join(lines)


def best_values(directions: tuple[Direction, ...]) -> list[float]:
    """Each direction's greatest value, in spreads."""
    return [d.examples[0].value / d.spread for d in directions if d.examples]


def _head(d: Direction) -> str:
    marks = ", ".join(f"{mark} {count}" for mark, count in d.marks[:4])
    return f"vector {d.index} x {d.sign:+d}  {' '.join(d.label.split())}{f'  [{marks}]' if marks else ''}"


def _line(e: Example, d: Direction) -> str:
    """One example with its place between >> and <<."""
    parts = list(e.pieces)
    parts[e.at] = f">>{parts[e.at]}<<"
    return f"{e.value / d.spread:6.1f} cos {e.cosine:5.2f}  {' '.join(''.join(parts).split())}"


def page(report: ActivatingReport) -> str:
    """The whole page. All text of models, corpora and banks is escaped."""
    return _TEMPLATE.render(report=report, random=best_values(report.control)) + "\n"
