"""What an R sweep found, and its rule for the suggested R."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from melbo.bank.vector_bank import BaseModel, VectorBank
from melbo.errors import BankError
from melbo.measure.text_metrics import CoherenceScale
from melbo.prompts import Message
from melbo.radius_sweep.config import SweepConfig
from melbo.runs.checkpoint import difference

FLOOR = 0.5
"""Least coherence of a suggested R, as a share of the unsteered answers'."""
DIGITS = 3
"""After the point, to which numbers of distinct answers are compared."""


@dataclass(frozen=True)
class Arm:
    """What the trained vectors, or the random ones, of one R do at scale 1."""

    objective: float
    """Mean displacement."""
    diversity: float
    """Mean pairwise cosine distance of the answers' embeddings; over several prompts, the mean."""
    similarity: float
    """1 - diversity."""
    distinct: float
    """How many different answers there are, in effect, each counted by its coherence
    (`melbo.radius_sweep.arms.distinct_answers`); over several prompts, the mean."""
    coherence: float
    """Mean, 0 to 10."""
    coherence_band: tuple[float, float]
    """Lower and upper quartile."""
    refusal: float
    """Share of the answers, as the next two."""
    degenerate: float
    dud: float
    """Answers equal to the unsteered one."""
    change: float
    """Mean cosine distance to the unsteered answer."""
    languages: Mapping[str, int]
    """Answers by language; "unknown" where too short to tell."""
    completions: tuple[tuple[str, ...], ...]
    """Answers: one tuple for each prompt, one text for each vector."""
    modes: Mapping[str, int] | None = None
    """Answers by what a judge of known behaviours sees in them; None without one."""
    planted: tuple[str, ...] | None = None
    """Known behaviours among these that the judge counts and no unsteered answer shows."""


@dataclass(frozen=True)
class SweepRow:
    """One R."""

    radius: float
    """In the config's unit."""
    norm: float
    """The same in activation units."""
    found: Arm
    """The trained vectors."""
    control: Arm
    """Random vectors of the same norm."""


@dataclass(frozen=True)
class Suggestion:
    """The goldilocks R."""

    radius: float | None
    """In the config's unit; None where no R will do."""
    reason: str
    """One sentence."""


@dataclass(frozen=True)
class Sweep:
    """Rows by R: all of the config's radii unless the run was stopped."""

    config: SweepConfig
    """Resolved."""
    base_model: BaseModel
    dtype: str
    """Of the model's weights: "torch.float32", ..."""
    prompts: tuple[tuple[Message, ...], ...]
    embedder: str
    """Name of the sentence-embedding model."""
    coherence_scale: CoherenceScale
    """What coherence is measured on."""
    mean_residual_norm: float
    unsteered: tuple[str, ...]
    """The unsteered answer to each prompt."""
    unsteered_coherence: float
    """Their mean."""
    auto_radius: float | None
    """What radius "auto" would choose (discovery/calibrate_radius.py), in the config's unit; None: none."""
    versions: Mapping[str, str]
    rows: tuple[SweepRow, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every radius has its row."""
        return len(self.rows) == len(self.config.radii)

    @property
    def floor(self) -> float:
        """Least mean coherence of a suggested R."""
        return FLOOR * self.unsteered_coherence

    @property
    def suggested(self) -> Suggestion:
        """The R with the most distinct answers among those whose mean coherence is at least `floor`.

        Of equal ones, to DIGITS digits, the smallest. Mean pairwise distance will not do: word salad is far from all
        else, so that it grows while answers break; and one more kind of answer hardly moves it.
        """
        differing = [r for r in self.rows if round(r.found.diversity, DIGITS) > 0]
        kept = [r for r in differing if r.found.coherence >= self.floor and r.found.coherence > 0]
        if not self.rows:
            return Suggestion(None, "no R is measured yet")
        if not differing:
            return Suggestion(None, "at every R all vectors give one answer; try larger R")
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
        """Raise BankError unless the sweep is of this bank's model, prompts and config (but for R and n_vectors)."""
        own = replace(self.config, base=bank.config).resolve(bank.base_model.n_layers, bank.base_model.d_model)
        mine = {"model": asdict(self.base_model), "prompts": self.prompts, "config": asdict(self.config.base)}
        other = {"model": asdict(bank.base_model), "prompts": bank.prompts, "config": asdict(own.base)}
        if mine != other:
            raise BankError(f"the sweep is not of this bank: {difference(mine, other)}; run `melbo sweep` on the bank.")
