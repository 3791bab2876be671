"""The measured answers of vectors and of random vectors, and where a vector does more than the random ones.

A vector acts on a prompt at a scale where its answer lies farther from the unsteered one (cosine distance of sentence
embeddings) than under every random vector at that size of scale, by at least MARGIN.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean

from melbo.annotation.answer_grid import AnswerGrid
from melbo.annotation.effect import Effect
from melbo.bank.annotation import ScaleRow
from melbo.measure.coherence import COHERENT, CoherenceScale
from melbo.measure.completions import Measurement, measure, rates
from melbo.measure.embeddings import Embedder
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.progress import OnProgress, notify

MARGIN = 0.15
"""Cosine distance by which an answer must lie farther off than under all random ones; an added sentence makes 0.1."""
_CHUNK = 256
"""Answers that are measured at once."""


@dataclass(frozen=True)
class EffectTable:
    """Measurements of all answers."""

    users: tuple[str, ...]
    unsteered: list[Measurement]
    scales: list[float]
    """Signed."""
    rows: Sequence[Sequence[Sequence[Measurement] | None]]
    """Vector, scale, prompt; None: not tried."""
    n_control: int
    """The last vectors are random ones."""

    @property
    def n(self) -> int:
        """Vectors of the bank."""
        return len(self.rows) - self.n_control

    def control(self, scale: float) -> list[list[Measurement]]:
        """At one size of scale: by random vector and sign, then by prompt."""
        own = [i for i, s in enumerate(self.scales) if abs(s) == abs(scale)]
        return [list(answers) for row in self.rows[self.n :] for i in own if (answers := row[i]) is not None]

    def excess(self, vector: int, place: int) -> list[float]:
        """Per prompt, by how much the change exceeds every random vector's plus MARGIN; below 0: it does not."""
        control = self.control(self.scales[place])
        most = [max((row[p].change for row in control), default=0.0) for p in range(len(self.users))]
        return [m.change - c - MARGIN for m, c in zip(self.answers(vector, place), most, strict=True)]

    def answers(self, vector: int, place: int) -> Sequence[Measurement]:
        """To all prompts, at a scale that was tried."""
        row = self.rows[vector][place]
        assert row is not None, "this scale was not tried"
        return row

    def effect(self, vector: int, place: int) -> Effect | None:
        """What the vector does at one scale; None where it does not act, or was not tried."""
        if self.rows[vector][place] is None:
            return None
        prompts = tuple(p for p, e in enumerate(self.excess(vector, place)) if e > 0)
        if not prompts:
            return None
        row = self.answers(vector, place)
        return Effect(
            vector,
            self.scales[place],
            prompts,
            tuple(row[p] for p in prompts),
            tuple(self.unsteered[p] for p in prompts),
        )

    def best(self, vector: int) -> list[Effect]:
        """For each sign at which the vector acts, its effect at the best scale; the better sign first.

        The best scale has the largest excess weighted by coherence, summed over prompts; of equal ones the smallest.
        """
        ranked: list[tuple[tuple[float, float, float], Effect]] = []
        for sign in (1, -1):
            own: list[tuple[tuple[float, float, float], Effect]] = []
            for place, scale in enumerate(self.scales):
                effect = self.effect(vector, place) if scale * sign > 0 else None
                if effect is not None:
                    excess = self.excess(vector, place)
                    weighted = sum(excess[p] * m.coherence for p, m in zip(effect.prompts, effect.steered, strict=True))
                    own.append(((-weighted, -sum(excess[p] for p in effect.prompts), abs(scale)), effect))
            ranked += sorted(own, key=lambda item: item[0])[:1]
        return [effect for _, effect in sorted(ranked, key=lambda item: item[0])]

    def ranges(self, vector: int, shown: Collection[float] = ()) -> tuple[tuple[float, float], ...]:
        """Scales at which the vector acts and the answers that it changes stay coherent, for each sign.

        Args:
            shown: scales at which it acts in any case, since a trait shows.
        """
        places = [i for i in range(len(self.scales)) if self.rows[vector][i] is not None]
        usable = []
        for place in places:
            effect, row = self.effect(vector, place), self.answers(vector, place)
            own = self.scales[place] in shown and fmean(m.coherence for m in row) >= COHERENT
            usable.append(own or (effect is not None and effect.coherence >= COHERENT))
        return usable_ranges([self.scales[i] for i in places], usable)

    def row(self, vector: int, place: int) -> ScaleRow:
        """What the vector does at one scale over all prompts."""
        acts = sum(e > 0 for e in self.excess(vector, place))
        return scale_row(self.scales[place], self.answers(vector, place), acts)

    def control_row(self, scale: float) -> ScaleRow:
        """What random vectors do at one size of scale over all prompts."""
        return scale_row(abs(scale), [m for row in self.control(scale) for m in row], 0)


def usable_ranges(scales: Sequence[float], usable: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """For each sign, the longest run of tried scales that are all usable, as (lowest, highest); negative first.

    Of runs of equal length the one nearer to 0 is taken.
    """
    found = []
    for sign in (-1, 1):
        own = sorted(((s, ok) for s, ok in zip(scales, usable, strict=True) if s * sign > 0), key=lambda x: abs(x[0]))
        best: list[float] = []
        run: list[float] = []
        for scale, ok in own:
            run = [*run, scale] if ok else []
            best = run if len(run) > len(best) else best
        if best:
            found.append((min(best), max(best)))
    return tuple(found)


def scale_row(scale: float, answers: Sequence[Measurement], acts: int) -> ScaleRow:
    """Means and shares of answers; at least one."""
    found = rates(answers)
    return ScaleRow(
        scale=scale,
        n=found.n,
        coherence=round(found.coherence, 3),
        refusal=round(found.refusal, 4),
        change=round(found.change, 4),
        same=round(found.dud, 4),
        degenerate=round(found.degenerate, 4),
        languages=found.languages,
        acts=acts,
    )


def effect_table(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    grid: AnswerGrid,
    scales: Sequence[float],
    n: int,
    n_control: int,
    embedder: Embedder,
    coherence_scale: CoherenceScale,
    progress: OnProgress | None = None,
) -> EffectTable:
    """Measure the answers of n vectors, the last n_control of which are random.

    Args:
        scales: signed, as in the grid.
        progress: called with (answers measured, changed answers).
    """
    plain = measure(loaded, prompts, grid.unsteered, grid.unsteered, embedder, coherence_scale)
    cells = sorted(grid.changed, key=lambda c: (c[2], c[0], c[1]))
    found: list[Measurement] = []
    for start in range(0, len(cells), _CHUNK):
        part = cells[start : start + _CHUNK]
        asked, base = [prompts[p] for *_, p in part], [grid.unsteered[p] for *_, p in part]
        found += measure(loaded, asked, [grid.changed[c] for c in part], base, embedder, coherence_scale)
        notify(progress, len(found), len(cells))
    by_cell = dict(zip(cells, found, strict=True))
    rows = [[[by_cell.get((v, s, p), m) for p, m in enumerate(plain)] for s in scales] for v in range(n)]
    return EffectTable(tuple(str(p[-1]["content"]) for p in prompts), plain, list(scales), rows, n_control)
