"""What an R sweep found, its rule for the suggested R, and its file.

A file with fewer rows than the config has radii is from a run that was stopped. The file also holds what follows from
the rows (floor, suggested), for other readers; loading computes it again.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from melbo.bank.facts import BaseModel
from melbo.bank.result_file import Extensible, FileKind, ResultFile
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.measure.coherence import CoherenceScale
from melbo.prompts import Message, check_conversations
from melbo.radius_sweep.config import SweepConfig
from melbo.runs.checkpoint import difference

FILE_NAME = "sweep.json"
Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=0, le=10)]
Distance = Annotated[float, Field(ge=0, le=2)]
Positive = Annotated[float, Field(ge=0)]
Counts = Mapping[str, Annotated[int, Field(gt=0)]]
FLOOR = 0.5
"""A suggested R needs at least this share of the unsteered answers' coherence."""
DIGITS = 3
"""Digits after the point to which numbers of distinct answers are compared."""


@dataclass(frozen=True)
class Arm(Extensible):
    """What the trained or the random vectors of one R do at scale 1."""

    objective: Positive
    """Mean displacement."""
    diversity: Distance
    """Mean pairwise cosine distance of the answers' embeddings; over several prompts, the mean."""
    similarity: Annotated[float, Field(ge=-1, le=1)]
    """1 - diversity."""
    distinct: Positive
    """The effective number of different answers, each weighted by its coherence
    (`melbo.radius_sweep.arms.distinct_answers`); over several prompts, the mean."""
    coherence: Score
    """Mean, 0 to 10."""
    coherence_band: tuple[Score, Score]
    """Lower and upper quartile of the coherence."""
    refusal: Share
    """Share of the answers; so are the next two."""
    degenerate: Share
    dud: Share
    """Answers equal to the unsteered one."""
    change: Distance
    """Mean cosine distance to the unsteered answer."""
    languages: Counts
    """Number of answers by language; "unknown" if too short to tell."""
    completions: tuple[tuple[str, ...], ...]
    """The answers: one tuple for each prompt, in it one text for each vector."""
    modes: Counts | None = None
    """Number of answers by the behaviour that a judge sees in them; None without a judge."""
    planted: tuple[str, ...] | None = None
    """The behaviours among these that the judge counts and no unsteered answer shows."""


@dataclass(frozen=True)
class SweepRow(Extensible):
    """One R."""

    radius: Positive
    """In the config's unit."""
    norm: Positive
    """The same in activation units."""
    found: Arm
    """The trained vectors."""
    control: Arm
    """Random vectors of the same norm."""


@dataclass(frozen=True)
class Suggestion:
    """The goldilocks R."""

    radius: float | None
    """In the config's unit; None if no R will do."""
    reason: str
    """One sentence."""


@dataclass(frozen=True)
class Sweep(ResultFile):
    """One row for each R; fewer than the config has radii if the run was stopped."""

    file = FileKind(
        "melbo-sweep", "sweep", "melbo sweep", BankError, version=1, before=("unit",), after=("floor", "suggested"),
        indent=2,
    )  # fmt: skip

    config: SweepConfig
    """Resolved."""
    base_model: BaseModel
    dtype: str
    """Type of the model's weights: "torch.float32", ..."""
    prompts: tuple[tuple[Message, ...], ...]
    embedder: str
    """Name of the sentence-embedding model."""
    coherence_scale: CoherenceScale
    """The scale that coherence is measured on."""
    mean_residual_norm: Positive
    unsteered: tuple[str, ...]
    """The unsteered answer to each prompt."""
    unsteered_coherence: Score
    """Their mean."""
    auto_radius: Positive | None
    """The R that radius "auto" would choose, in the config's unit; None if it finds none."""
    versions: Mapping[str, str]
    rows: tuple[SweepRow, ...]

    def __post_init__(self) -> None:
        n = len(self.prompts)
        if self.config.resolve(self.base_model.n_layers, self.base_model.d_model) != self.config:
            raise BankError("the stored config is not resolved")
        if [row.radius for row in self.rows] != list(self.config.radii[: len(self.rows)]):
            raise BankError("the rows are not those of the config's radii")
        check_conversations(self.prompts)
        if not n or len(self.unsteered) != n:
            raise BankError("there must be prompts, each with its unsteered answer")
        for row in self.rows:
            answers = [texts for arm in (row.found, row.control) for texts in arm.completions]
            if len(answers) != 2 * n or any(len(texts) != self.config.n_vectors for texts in answers):
                raise BankError(f"the row of R {row.radius:g} does not hold one answer for each prompt and vector")

    @property
    def unit(self) -> str:
        """Of the radii."""
        return self.config.unit

    @property
    def complete(self) -> bool:
        """Whether every radius has its row."""
        return len(self.rows) == len(self.config.radii)

    @property
    def floor(self) -> float:
        """A suggested R needs at least this mean coherence."""
        return FLOOR * self.unsteered_coherence

    @property
    def suggested(self) -> Suggestion:
        """The R with the most distinct answers among those whose mean coherence is at least `floor`.

        If several are equal, to DIGITS digits, the smallest. Mean pairwise distance would not work: word salad is far
        from everything, so the distance grows while answers break down, and one more kind of answer hardly changes it.
        """
        differing = [r for r in self.rows if round(r.found.diversity, DIGITS) > 0]
        kept = [r for r in differing if r.found.coherence >= self.floor and r.found.coherence > 0]
        if not self.rows:
            return Suggestion(None, "no R is measured yet")
        if not differing:
            return Suggestion(None, "at every R all vectors give the same answer; try larger R")
        if not kept:
            return Suggestion(
                None, f"wherever answers differ, their mean coherence is below {self.floor:.1f}; try smaller R"
            )
        best = max(kept, key=lambda r: (round(r.found.distinct, DIGITS), -r.radius))
        return Suggestion(
            best.radius,
            f"most distinct answers ({best.found.distinct:.1f}) among the {len(kept)} of {len(self.rows)} R where "
            f"answers differ and their mean coherence is at least {self.floor:.1f}",
        )

    def check_fits(self, bank: VectorBank) -> None:
        """Raise BankError unless the sweep has this bank's model, prompts and config (except R and n_vectors)."""
        own = replace(self.config, base=bank.config).resolve(bank.base_model.n_layers, bank.base_model.d_model)
        mine = {"model": asdict(self.base_model), "prompts": self.prompts, "config": asdict(self.config.base)}
        other = {"model": asdict(bank.base_model), "prompts": bank.prompts, "config": asdict(own.base)}
        if mine != other:
            raise BankError(f"the sweep is not of this bank: {difference(mine, other)}; run `melbo sweep` on the bank.")


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep from its file, or from a bank's folder.

    Raises:
        BankError: there is no sweep, or it is damaged, of a newer version, or holds impossible values.
    """
    return Sweep.load(Path(path) / FILE_NAME if os.path.isdir(path) else Path(path))
