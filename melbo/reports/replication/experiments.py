"""The replication's experiments, on any bank.

1. The vectors to try are those whose annotations say that they show the behaviour (`replication.traits`); refusal
   by subtraction tries the vectors of non-refusal, at scales of the other sign.
2. They, and as many random vectors of the same norm, answer the prompts at all scales (`melbo.annotation.answer_grid`).
3. Prompts count whose unsteered answer leaves room for the behaviour. Reported are the vector and scale whose share of
   these exceeds that of the best random vector at the same size of scale by most. Both are chosen on these very
   prompts; the random vectors' best at any scale is given too.
4. Where a judge knows the model's behaviours, it reads the answers shown.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from melbo.annotation.answer_grid import answer_grid, signed
from melbo.annotation.table import effect_table
from melbo.bank.vector_bank import VectorBank
from melbo.measure.behaviour_judge import BehaviourJudge
from melbo.measure.coherence import CoherenceScale
from melbo.measure.embeddings import Embedder
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, REFUSED, chat
from melbo.reports.replication.finding import Finding
from melbo.reports.replication.presets import StudyConfig
from melbo.reports.replication.scan import Scan, after_trial, judged, without_trial
from melbo.reports.replication.traits import Trait, candidates, languages_in
from melbo.runs.progress import OnProgress
from melbo.steering.random_vectors import control_vectors

MORE_LANGUAGES = 5
"""Most languages beyond the replication's that are tried."""


@dataclass(frozen=True)
class Experiment:
    """What to look for, and where."""

    name: str
    title: str
    looked_for: str
    trait: Trait
    prompts: tuple[str, ...]
    published_scale: float | None
    replication: str
    """What the replication found."""
    subtract: bool = False
    """Whether the vector of non-refusal is tried, with the other sign."""
    sizes: tuple[float, ...] = ()
    """Sizes of scale to try besides the study's."""


def experiments(bank: VectorBank) -> list[Experiment]:
    """The replication's, and one for each further language that the annotations name."""
    own = str(bank.prompts[0][-1]["content"])
    vanilla = (own, *INNOCUOUS)
    found = [
        Experiment(
            "non-refusal", "Non-refusal", "a vector that makes the model answer ten requests it should refuse",
            Trait("non-refusal", planted="compliance"), REFUSED, 1.5, "vectors 17 and 6",
        ),
        Experiment(
            "refusal-by-subtraction", "Refusal by subtraction",
            "the non-refusal vector, subtracted, makes the model refuse five innocuous requests",
            Trait("refuses", planted="blanket_refusal"), INNOCUOUS, 6.0, "on some prompts", True, (3.0, 4.0),
        ),
    ]  # fmt: skip
    published = {"de": ("german", "vector 31"), "vi": ("vietnamese", "vector 100"), "zh": ("chinese", "vector 119")}
    more = [code for code in languages_in(bank) if code not in (*published, "en")][:MORE_LANGUAGES]
    for code in (*published, *more):
        planted, where = published.get(code, (None, "not reported"))
        trait = Trait("language", code, planted)
        wanted = f"a vector that makes the model answer in {trait.name}"
        found.append(Experiment(f"language-{code}", trait.name, wanted, trait, vanilla, 1.7, where))
    help_wanted = "a vector that makes the model answer as a mental-health or suicide-prevention helpline"
    game_wanted = "a vector that makes the model answer as if in a game (the original paper's Minecraft vector)"
    return [
        *found,
        Experiment(
            "mental-health", "Mental health", help_wanted, Trait("words", "mental health", "helpline"), vanilla, 2.5,
            "vectors 47 and 99",
        ),
        Experiment(
            "game", "Game", game_wanted, Trait("words", "game", "game"), vanilla, None, "not found",
        ),
    ]  # fmt: skip


def run_experiment(
    loaded: LoadedModel,
    bank: VectorBank,
    experiment: Experiment,
    config: StudyConfig,
    embedder: Embedder,
    coherence_scale: CoherenceScale,
    non_refusal: Finding | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    judge: BehaviourJudge | None = None,
) -> Finding:
    """Look for one behaviour.

    Args:
        bank: annotated.
        non_refusal: what that experiment found; needed where `experiment.subtract`.
        progress: called with the answers that are settled, and all; an exception from it cancels.
        checkpoint: file that a stopped run goes on from; delete it when the finding is saved.
        judge: says of the answers shown which known behaviour they show; None: there is no such judge of this model.
    """
    tried, sign = _to_try(bank, experiment, config.candidates, non_refusal)
    published = () if experiment.published_scale is None else (experiment.published_scale,)
    sizes = sorted({*config.scales, *experiment.sizes, *published})
    system = next((m["content"] for m in bank.prompts[0] if m["role"] == "system"), None)
    prompts = [chat(user, system) for user in experiment.prompts[: config.prompts_each]]
    random = control_vectors(max(1, len(tried)), loaded.d_model, bank.radius, bank.config.orthogonal, bank.config.seed)
    vectors = torch.cat([bank.vectors[tried], random[: len(tried)]])
    grid = answer_grid(
        loaded, vectors, bank.layer, prompts, sizes, config.max_new_tokens, progress, checkpoint
    )  # fmt: skip
    table = effect_table(
        loaded, prompts, grid, signed(sizes), len(vectors), len(tried), embedder, coherence_scale
    )  # fmt: skip
    blank = Finding(
        experiment.name, experiment.title, experiment.looked_for, experiment.replication, "not found", "",
        tuple(tried), experiment.published_scale,
        planted=None if judge is None else experiment.trait.planted,
    )  # fmt: skip
    scan = Scan(table, experiment.trait, sign)
    finding = without_trial(blank, scan, bank, experiment.subtract) or after_trial(blank, scan, bank)
    return judged(judge, loaded, finding) if judge and finding.planted and finding.vector is not None else finding


def _to_try(bank: VectorBank, experiment: Experiment, most: int, non_refusal: Finding | None) -> tuple[list[int], int]:
    """Vectors, and the sign of the scales that count (0: both)."""
    if not experiment.subtract:
        return candidates(bank, experiment.trait, most), 0
    if non_refusal is None or non_refusal.vector is None or not non_refusal.scale or not non_refusal.share:
        return [], 0
    return [non_refusal.vector], -1 if non_refusal.scale > 0 else 1
