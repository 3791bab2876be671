"""From measured answers of candidates and of random vectors to a finding."""

from dataclasses import dataclass, replace
from statistics import fmean

from melbo.annotation.table import EffectTable, usable_ranges
from melbo.bank.vector_bank import VectorBank
from melbo.measure.behaviour_judge import BehaviourJudge
from melbo.models.load import LoadedModel
from melbo.reports.replication.finding import Answer, Finding, ScaleShare, verdict_of
from melbo.reports.replication.traits import Trait


@dataclass(frozen=True)
class Scan:
    """A measured grid and what is looked for in it."""

    table: EffectTable
    trait: Trait
    sign: int
    """Of the scales that count; 0: both."""

    @property
    def open(self) -> list[int]:
        """Prompts that count."""
        return [p for p, m in enumerate(self.table.unsteered) if self.trait.open_to(m)]

    def shown(self, row: int, place: int, prompt: int) -> bool:
        """Whether vector `row`, random ones last, shows the trait there."""
        return self.trait.shown(self.table.answers(row, place)[prompt], self.table.unsteered[prompt])

    def share(self, row: int, place: int) -> float:
        """Of the prompts that count."""
        return fmean(self.shown(row, place, p) for p in self.open)

    def coherence(self, row: int, place: int) -> float:
        """Mean over all prompts."""
        return fmean(m.coherence for m in self.table.answers(row, place))

    def places(self) -> list[int]:
        """Indices of the scales that count."""
        return [i for i, s in enumerate(self.table.scales) if s * self.sign >= 0]

    def margin(self, row: int, place: int) -> float:
        """By how much the share exceeds that of the best random vector at the same size of scale."""
        return self.share(row, place) - self.share(*self.best_random(self.table.scales[place]))

    def best(self) -> tuple[int, int]:
        """(row, place) with the largest margin; of equal ones the largest share, most coherence, smallest scale."""
        pairs = [(r, i) for r in range(self.table.n) for i in self.places()]
        return max(pairs, key=lambda x: (round(self.margin(*x), 6), *self._worth(*x)))

    def best_random(self, size: float | None = None) -> tuple[int, int]:
        """(row, place) of the random vector with the largest share, at one size of scale or all, both signs."""
        scales = self.table.scales
        places = [i for i, s in enumerate(scales) if size is None or abs(s) == abs(size)]
        pairs = [(r, i) for r in range(self.table.n, len(self.table.rows)) for i in places]
        return max(pairs, key=lambda x: self._worth(*x))

    def _worth(self, row: int, place: int) -> tuple[float, float, float]:
        return self.share(row, place), round(self.coherence(row, place), 6), -abs(self.table.scales[place])


def without_trial(blank: Finding, scan: Scan, bank: VectorBank, subtract: bool) -> Finding | None:
    """The finding where there is no vector to try or no prompt to try it on; None where there is."""
    n = len(scan.open)
    answers = tuple(
        Answer(user, m.text, None, None, p in scan.open, False, False)
        for p, (user, m) in enumerate(zip(scan.table.users, scan.table.unsteered, strict=True))
    )
    if n == 0:
        reason = f"none of the {len(answers)} unsteered answers leaves room for it."
        return replace(blank, verdict="cannot be tested", reason=reason, answers=answers)
    if blank.candidates:
        return None
    reason = f"the annotation of none of the {len(bank)} vectors names it."
    if subtract:
        reason = "there is no non-refusal vector to subtract."
        return replace(blank, verdict="cannot be tested", reason=reason, n=n, answers=answers)
    return replace(blank, reason=reason, n=n, answers=answers)


def after_trial(blank: Finding, scan: Scan, bank: VectorBank) -> Finding:
    """The best vector and scale, beside the best random ones."""
    scales = scan.table.scales
    row, place = scan.best()
    beside, widest = scan.best_random(scales[place]), scan.best_random()
    share, random = scan.share(row, place), scan.share(*beside)
    verdict, reason = verdict_of(share, random)
    enough = [i in scan.places() and share > 0 and scan.share(row, i) >= share / 2 for i in range(len(scales))]
    sign = 1 if scales[place] > 0 else -1
    published = None if blank.published_scale is None else scales.index(sign * blank.published_scale)
    return replace(
        blank,
        verdict=verdict,
        reason=reason,
        vector=blank.candidates[row],
        label=bank.label(blank.candidates[row]),
        scale=scales[place],
        works=next((r for r in usable_ranges(scales, enough) if r[0] <= scales[place] <= r[1]), None),
        share=share,
        n=len(scan.open),
        control_share=random,
        control_anywhere=scan.share(*widest),
        control_scale=scales[widest[1]],
        published_share=None if published is None else scan.share(row, published),
        by_scale=tuple(
            ScaleShare(scales[i], scan.share(row, i), scan.share(*scan.best_random(scales[i])), scan.coherence(row, i))
            for i in range(len(scales))
        ),
        answers=tuple(
            Answer(
                user,
                scan.table.unsteered[p].text,
                scan.table.answers(row, place)[p].text,
                scan.table.answers(*beside)[p].text,
                p in scan.open,
                p in scan.open and scan.shown(row, place, p),
                p in scan.open and scan.shown(*beside, p),
            )
            for p, user in enumerate(scan.table.users)
        ),
    )


def judged(judge: BehaviourJudge, loaded: LoadedModel, finding: Finding) -> Finding:
    """With what the judge sees in the answers shown."""
    answers = []
    for a in finding.answers:
        seen = judge.shown(loaded, a.prompt, [a.unsteered, a.steered or "", a.control or ""])
        answers.append(replace(a, modes=(seen[0], seen[1], seen[2])))
    counted = [a.modes for a in answers if a.counts and a.modes]
    steered, control = (fmean(m[k] == finding.planted for m in counted) for k in (1, 2))
    return replace(finding, answers=tuple(answers), judged=steered, control_judged=control)
