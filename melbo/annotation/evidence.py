"""Which traits a vector's answers share, chosen on some prompts and counted on others, beside random vectors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from melbo.annotation.measured_answers import MeasuredAnswers
from melbo.bank.annotation import TraitShare
from melbo.measure.traits.traits import LETTERS, Kind, Trait

OFTEN = 0.5
"""Least share of the prompts on which a trait shows that is not called weak."""
SELDOM = 0.2
"""Least share of the held-out prompts on which a trait shows that is named at all."""
BEYOND = 0.15
"""By how much a trait's share must exceed that of random vectors."""
ALONE = 0.75
"""The same, where only one prompt leaves room for the trait."""
CHOSEN: dict[Kind, float] = {"words": 0.7, "topic": 0.6}
"""Least share of the choosing prompts, where it is not OFTEN: there are thousands of words to choose from."""
WEIGHTS: dict[Kind, float] = {
    "behaviour": 1.3,
    "language": 1.15,
    "refusal": 1.1,
    "form": 1.0,
    "topic": 0.7,
    "words": 0.78,
}
"""What a share is worth: a trait that says more, or that is told more surely, is preferred."""
_LONGER = 0.04
"""What each further word of a phrase adds to that."""
CLEAR = 5.0
"""Mean coherence below which a scale is worth less."""


@dataclass(frozen=True)
class Candidate:
    """A trait of one vector at one scale, as the choosing prompts show it."""

    trait: Trait
    scale: float
    shown: int
    of: int
    worth: float
    """By which candidates are ranked."""


class Evidence:
    """Counts traits in answers.

    Args:
        controls: the vectors that are random ones, by index.
    """

    def __init__(self, answers: MeasuredAnswers, controls: Sequence[int]) -> None:
        self._answers, self._controls = answers, controls
        self._random: dict[tuple[float, tuple[int, ...]], Counter[Trait]] = {}

    def random(self, trait: Trait, scale: float, prompts: Sequence[int]) -> float:
        """Share of random vectors' answers, at this size of scale and both signs, that show the trait."""
        open_to = tuple(p for p in prompts if self._answers.room(trait, p))
        key = abs(scale), open_to
        cells = [(v, s, p) for v in self._controls for s in (abs(scale), -abs(scale)) for p in open_to]
        if key not in self._random:
            self._random[key] = Counter(t for cell in cells for t in self._answers.traits(cell))
        return self._random[key][trait] / len(cells) if cells else 0.0

    def count(self, vector: int, scale: float, trait: Trait, prompts: Sequence[int]) -> tuple[int, int]:
        """On how many of the prompts that leave room for it the trait shows."""
        open_to = [p for p in prompts if self._answers.room(trait, p)]
        return sum(trait in self._answers.traits((vector, scale, p)) for p in open_to), len(open_to)

    def candidates(self, vector: int, scale: float, prompts: Sequence[int]) -> list[Candidate]:
        """Traits that most of the vector's answers share, beyond random vectors', best first."""
        cells = [(vector, scale, p) for p in prompts]
        coherence = sum(self._answers[cell].coherence for cell in cells) / len(cells)
        found = []
        for trait, times in Counter(t for cell in cells for t in self._answers.traits(cell)).items():
            if times < CHOSEN.get(trait.kind, 0.0) * len(cells):
                continue
            shown, of = self.count(vector, scale, trait, prompts)
            beyond = shown / of - self.random(trait, scale, prompts) if of else 0.0
            alone = of == 1 and trait.kind == "refusal"  # few prompts are refused
            least = 1 if alone or len(prompts) <= 2 else 2
            if shown < least or shown / of < CHOSEN.get(trait.kind, OFTEN) or beyond < (ALONE if alone else BEYOND):
                continue
            weight = WEIGHTS[trait.kind] + (_LONGER * trait.name.count(" ") if trait.kind == "words" else 0.0)
            weight -= 0.01 * trait.name.endswith(LETTERS)
            found.append(Candidate(trait, scale, shown, of, beyond * weight * min(1.0, coherence / CLEAR)))
        return sorted(found, key=lambda c: (-c.worth, c.trait.order, c.trait))

    def share(self, vector: int, scale: float, trait: Trait, prompts: Sequence[int]) -> TraitShare:
        """How often the trait repeats on these prompts, as a bank stores it."""
        shown, of = self.count(vector, scale, trait, prompts)
        random = round(self.random(trait, scale, prompts), 4)
        return TraitShare(trait.title, trait.kind, scale, shown, of, random)


def holds(share: TraitShare) -> bool:
    """Whether a trait repeats at all, beyond random vectors."""
    return share.share >= SELDOM and share.share - (share.random or 0.0) >= BEYOND


def is_weak(share: TraitShare) -> bool:
    """Whether a trait shows on fewer than half of the prompts."""
    return share.share < OFTEN
