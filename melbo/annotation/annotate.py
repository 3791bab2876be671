"""Say what each vector of a bank does.

1. Every vector, and random vectors of the same norm, answer the choosing prompts at both signs, at the largest scale
   that the bank can be used at (`melbo.discovery.usable_scale`), or at the scales that were asked for. Where none was
   asked for, a sign whose answers break is tried at a smaller scale, and one that changes hardly any at a larger one.
2. Of each sign, the trait is chosen that most answers share beyond random vectors' (`melbo.annotation.evidence`), and
   the scale at which it is clearest. It then answers the held-out prompts, which say how often it really repeats.
3. That trait is the label: as it stands where it shows on at least half of the held-out prompts, else marked weak.
   A vector without one is a dud, unless its answers lie farther from the unsteered ones (cosine distance of sentence
   embeddings) than under every random vector, by a margin (`melbo.annotation.table`): then it has no repeated trait.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from melbo.annotation.answer_grid import signed
from melbo.annotation.effect import Effect, tags_of
from melbo.annotation.evidence import Candidate, Evidence, holds, is_weak
from melbo.annotation.measured_answers import MeasuredAnswers, Meters
from melbo.annotation.table import EffectTable
from melbo.bank.annotation import DUD_LABEL, Annotation, Auto, Example, TraitShare, merged
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, PromptError
from melbo.measure.behaviour_judge import BehaviourJudge, check_judge
from melbo.measure.coherence import COHERENT, CoherenceScale, calibrate_coherence
from melbo.measure.embeddings import Embedder, load_embedder
from melbo.measure.traits.traits import TraitEar
from melbo.models.load import LoadedModel
from melbo.prompts import EVERYDAY, HELD_OUT, REFUSED, Message, chat
from melbo.runs.parse import dump
from melbo.runs.progress import OnProgress
from melbo.steering.generate import Sampling
from melbo.steering.random_vectors import control_vectors

SMALLER, LARGER = 2 / 3, 1.5
"""Of the first scale: what is tried where answers break, and where most stay as they are. Trying the larger one
wherever nothing repeats took 550 of 1,800 answers of a bank of 64, and found 1 label that holds."""
HARMFUL = (REFUSED[0], REFUSED[3])
HARMLESS = ("How can I bake bread?", "How can I learn to play chess?")
FIRST = 4
"""Held-out prompts that are asked first: a trait that shows on none of them is dropped."""
UNCLEAR_LABEL = "no repeated trait"
EXAMPLES = 3
NAMER_TEXTS = 8
Namer = Callable[[list[str], list[str]], str | None]
"""Names an effect from its steered and unsteered answers (at most 8 of each); None: it does not know."""


def default_prompts(bank: VectorBank) -> list[list[Message]]:
    """The bank's first prompt, everyday messages and one that models refuse, all under the bank's system prompt."""
    own = list(bank.prompts[0]) if bank.prompts else []
    system = next((m["content"] for m in own if m["role"] == "system"), None)
    others = [chat(u, system) for u in (REFUSED[0], *EVERYDAY)]
    return [own, *[p for p in others if p != own][:3]] if own else others


def heldout_prompts(bank: VectorBank, chosen: Sequence[Sequence[Message]]) -> list[list[Message]]:
    """HELD_OUT under the bank's system prompt, without what the bank was found or annotated on."""
    system = next((m["content"] for p in bank.prompts[:1] for m in p if m["role"] == "system"), None)
    seen = {str(p[-1]["content"]) for p in (*bank.prompts, *chosen) if p}
    return [chat(user, system) for user in HELD_OUT if user not in seen]


def annotate(
    loaded: LoadedModel,
    bank: VectorBank,
    prompts: Sequence[Sequence[Message]] | None = None,
    scales: Sequence[float] | None = None,
    embedder: Embedder | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    namer: Namer | None = None,
    *,
    heldout: Sequence[Sequence[Message]] | None = None,
    judge: BehaviourJudge | None = None,
    n_control: int = 4,
    max_new_tokens: int = 32,
    coherence_scale: CoherenceScale | None = None,
    keep_edits: bool = True,
) -> VectorBank:
    """The bank with a new annotation of each vector; `details["annotation"]` holds the settings and the control.

    Args:
        prompts: conversations on which scales and traits are chosen; None: `default_prompts`.
        scales: sizes above 0, all tried with both signs; None: chosen, see above.
        embedder: None: the default of `load_embedder`.
        progress: called with (answers measured, answers of the phase); an exception from it cancels.
        checkpoint: file that a stopped run with the same settings goes on from; delete it when the bank is saved.
        namer: names what shares a label, for example a language model; what it does not know keeps its label.
        heldout: conversations on which traits are counted; None: `heldout_prompts`; none: the choosing ones.
        judge: names the answers that show a behaviour it knows; None: there is no such judge of this model.
        n_control: random vectors of the same norm, at least 1; both signs are asked.
        coherence_scale: None: calibrated on the model, see `calibrate_coherence`.
        keep_edits: keep what a curator wrote, see `melbo.bank.annotation`.

    Raises:
        BankError: the bank was made for another model.
        ConfigError, PromptError, MetricError: a bad setting, prompt, checkpoint, embedder or judge.
    """
    bank.check_fits(loaded)
    check_judge(judge, loaded)
    if n_control < 1:
        raise ConfigError(f"n_control is {n_control}; at least one random vector is needed to compare with.")
    chosen_on = default_prompts(bank) if prompts is None else [list(p) for p in prompts]
    if not chosen_on:
        raise PromptError("no prompt was given; annotation needs at least one.")
    sizes = signed(scales)[len(set(scales)) :] if scales is not None else [bank.usable_scale.largest or 1.0]
    counted_on = heldout_prompts(bank, chosen_on) if heldout is None else [list(p) for p in heldout]
    random = control_vectors(n_control, loaded.d_model, bank.radius, bank.config.orthogonal, bank.config.seed)
    scale = coherence_scale or calibrate_coherence(loaded, seed=bank.config.seed, sampling=Sampling(max_new_tokens))
    embed = embedder or load_embedder()
    meters = Meters(embed, scale, TraitEar.of(embed), judge)
    answers = MeasuredAnswers(
        loaded,
        torch.cat([bank.vectors, random]),
        bank.layer,
        [*chosen_on, *counted_on],
        max_new_tokens,
        meters,
        progress,
        checkpoint,
        None if scales is None else sizes,
    )
    search = _Search(answers, len(bank), n_control, len(chosen_on), sizes, widen=scales is None)
    found = search.run(namer, judge)
    if keep_edits and bank.annotations:
        found = [merged(old, new) for old, new in zip(bank.annotations, found, strict=True)]
    control = [dump(search.table.control_row(s), none=False) for s in search.sizes]
    details = {"scales": search.sizes, "n_control": n_control, "max_new_tokens": max_new_tokens}
    details |= {"prompts": chosen_on, "heldout": counted_on, "embedder": embed.name, "control": control}
    details |= {"unsteered": [m.text for m in answers.unsteered], "coherence_scale": asdict(scale)}
    return replace(bank, annotations=tuple(found), details={**bank.details, "annotation": details})


@dataclass(frozen=True)
class _Named:
    """What one sign of a vector does."""

    effect: Effect
    """On the choosing prompts."""
    share: TraitShare
    mode: str | None
    """The known behaviour, where it is one."""


class _Search:
    """Looks where it is worth it, see the top of this module."""

    def __init__(
        self, answers: MeasuredAnswers, n: int, n_control: int, n_chosen: int, sizes: list[float], *, widen: bool
    ) -> None:
        self._answers, self._n, self._widen, self.sizes = answers, n, widen, sizes
        self._controls = range(n, n + n_control)
        self._chosen = range(n_chosen)
        self._heldout = range(n_chosen, len(answers.prompts)) or self._chosen
        self._evidence = Evidence(answers, self._controls)
        self.tried: dict[tuple[int, int], list[float]] = {}
        self.table: EffectTable

    def run(self, namer: Namer | None, judge: BehaviourJudge | None) -> list[Annotation]:
        """Ask, choose, check on the held-out prompts; one annotation for each vector."""
        signs = [(v, sign) for v in range(self._n) for sign in (1, -1)]
        self._try(dict.fromkeys(signs, self.sizes), "answering")
        if self._widen:
            size = self.sizes[0]
            more = {key: [size * factor] for key in signs if (factor := self._other(*key, size)) is not None}
            self._try(more, "looking closer")
        self.sizes = sorted({size for own in self.tried.values() for size in own})
        self.table = self._table()
        best = {key: own for key in signs if (own := self._best(*key)) is not None}
        first, rest = self._heldout[:FIRST], self._heldout[FIRST:]
        cells = [(v, c.scale, p) for (v, _), c in best.items() for p in first]
        self._answers.ask(cells, "checking on other prompts", likelihoods=False)
        best = {key: c for key, c in best.items() if self._may_repeat(key[0], c, first)}
        cells = [(v, c.scale, p) for (v, _), c in best.items() for p in rest]
        cells += self._random_cells({abs(c.scale) for c in best.values()}, self._heldout)
        self._answers.ask(cells, "counting on other prompts", likelihoods=False)
        named = [effect for (v, _), c in best.items() if (effect := self._named(v, c, judge)) is not None]
        titles = self._titles(named, namer, judge)
        return [
            self._annotation(v, [(own, titles[own.share.trait]) for own in named if own.effect.vector == v])
            for v in range(self._n)
        ]

    def _random_cells(self, sizes: set[float], prompts: Sequence[int]) -> list[tuple[int, float, int]]:
        return [(v, s, p) for v in self._controls for size in sorted(sizes) for s in (size, -size) for p in prompts]

    def _try(self, sizes: dict[tuple[int, int], list[float]], message: str) -> None:
        cells = [(v, sign * size, p) for (v, sign), own in sizes.items() for size in own for p in self._chosen]
        cells += self._random_cells({size for own in sizes.values() for size in own}, self._chosen)
        self._answers.ask(cells, message)
        for key, own in sizes.items():
            self.tried[key] = sorted({*self.tried.get(key, []), *own})

    def _mean_coherence(self, vector: int, scale: float) -> float:
        return sum(self._answers[vector, scale, p].coherence for p in self._chosen) / len(self._chosen)

    def _other(self, vector: int, sign: int, size: float) -> float | None:
        """By what the first size is multiplied to look again; None: it was the right one."""
        if self._mean_coherence(vector, sign * size) < COHERENT:
            return SMALLER
        same = sum(self._answers[vector, sign * size, p].same for p in self._chosen)
        return LARGER if 2 * same >= len(self._chosen) else None

    def _best(self, vector: int, sign: int) -> Candidate | None:
        found = [
            c for size in self.tried[vector, sign] for c in self._evidence.candidates(vector, sign * size, self._chosen)
        ]
        return max(found, key=lambda c: (c.worth, -abs(c.scale), -c.trait.order), default=None)

    def _may_repeat(self, vector: int, chosen: Candidate, prompts: Sequence[int]) -> bool:
        """Whether it is worth it to ask more prompts than these."""
        shown, of = self._evidence.count(vector, chosen.scale, chosen.trait, prompts)
        return shown > 0 or of == 0 or chosen.trait.kind == "behaviour"

    def _named(self, vector: int, chosen: Candidate, judge: BehaviourJudge | None) -> _Named | None:
        share = self._evidence.share(vector, chosen.scale, chosen.trait, self._heldout)
        if share.of and not holds(share) and chosen.trait.kind != "behaviour":
            return None
        cells = {p: (vector, chosen.scale, p) for p in self._chosen}
        shows = tuple(p for p, cell in cells.items() if chosen.trait in self._answers.traits(cell))
        steered = tuple(self._answers[cells[p]] for p in shows)
        effect = Effect(vector, chosen.scale, shows, steered, tuple(self._answers.unsteered[p] for p in shows))
        if judge is None or chosen.trait.kind != "behaviour":
            return _Named(effect, share, None)
        return _Named(effect, replace(share, trait=judge.labels[chosen.trait.name]), chosen.trait.name)

    def _titles(self, named: Sequence[_Named], namer: Namer | None, judge: BehaviourJudge | None) -> dict[str, str]:
        """How each trait is called: by the namer, where it knows."""
        known = {} if judge is None else {judge.labels[own.mode] for own in named if own.mode}
        titles = {own.share.trait: own.share.trait for own in named}
        for trait in titles if namer is not None else ():
            group = [own.effect for own in named if own.share.trait == trait]
            if trait not in known and namer is not None:
                titles[trait] = namer(*_texts(group)) or trait
        return titles

    def _table(self) -> EffectTable:
        """All that was tried on the choosing prompts, for changes beyond the control."""
        scales = [*(-s for s in reversed(self.sizes)), *self.sizes]
        plain = [self._answers.unsteered[p] for p in self._chosen]
        rows = []
        for v in (*range(self._n), *self._controls):
            rows.append([[self._answers[v, s, p] for p in self._chosen] if self._has(v, s) else None for s in scales])
        users = tuple(self._answers.users[p] for p in self._chosen)
        return EffectTable(users, plain, scales, rows, len(self._controls))

    def _has(self, vector: int, scale: float) -> bool:
        sign = 1 if scale > 0 else -1
        return vector >= self._n or abs(scale) in self.tried[vector, sign]

    def _annotation(self, vector: int, named: Sequence[tuple[_Named, str]]) -> Annotation:
        named = sorted(named, key=lambda item: (is_weak(item[0].share), -item[0].share.share, item[0].effect.scale < 0))
        places = [i for i in range(len(self.table.scales)) if self.table.rows[vector][i] is not None]
        rows = [self.table.row(vector, place) for place in places]
        effects = self.table.best(vector)
        tried = f"{len(self._chosen)} prompts at scales {', '.join(f'{row.scale:g}' for row in rows)}"
        if self._heldout != self._chosen and named:
            tried += f", {len(self._heldout)} other prompts at {', '.join(f'{o.effect.scale:g}' for o, _ in named)}"
        if named:
            scale = named[0][0].effect.scale
            examples = [e for own, _ in named for e in _examples(self.table, own.effect)]
            label, tags = _label(named), _tags(named)
        elif effects:
            scale, label = effects[0].scale, UNCLEAR_LABEL
            examples = _examples(self.table, effects[0])
            tags = ["unclear", *_measured(effects[0], "")]
        else:
            first = min(places, key=lambda i: (self.table.scales[i] < 0, abs(self.table.scales[i])))
            scale, label, tags = self.table.scales[first], DUD_LABEL, ["dud"]
            answer = self._answers[vector, scale, self._chosen[0]]
            examples = [Example(self.table.users[0], scale, answer.text, self.table.unsteered[0].text)]
            same = all(row.same == 1 for row in rows)
            what = "no answer changed" if same else "no answer changed clearly more than by random vectors"
            tried = f"{what}: {tried}"
        tagged = tuple(dict.fromkeys(tags))
        place = self.table.scales.index(scale)
        return Annotation(
            label=label,
            tags=tagged,
            tried=tried,
            scale=scale,
            scale_ranges=self.table.ranges(vector, {own.effect.scale for own, _ in named}),
            metrics=replace(self.table.row(vector, place), control=self.table.control_row(scale)),
            by_scale=tuple(rows),
            traits=tuple(own.share for own, _ in named),
            examples=tuple(examples[:EXAMPLES]),
            dud="dud" in tagged,
            auto=Auto(label, tagged),
        )


def _tags(named: Sequence[tuple[_Named, str]]) -> list[str]:
    tags = [f"mode:{own.mode}" for own, _ in named if own.mode]
    tags += [t for own, _ in named for t in _measured(own.effect, own.share.kind)]
    return [*tags, *(["weak"] if all(is_weak(own.share) for own, _ in named) else [])]


def _measured(effect: Effect, kind: str) -> list[str]:
    """Tags of what can be measured; that one refused prompt is answered says something only where it is the trait."""
    alone = sum(m.refusal for m in effect.unsteered) < 2 and kind not in ("refusal", "behaviour")
    return [tag for tag in tags_of([effect]) if not (alone and tag == "non-refusal")]


def _texts(group: Sequence[Effect]) -> tuple[list[str], list[str]]:
    """At most NAMER_TEXTS steered answers of effects, taken in turn, and the unsteered ones to the same prompts."""
    turns = sorted(((i, k) for k, e in enumerate(group) for i in range(len(e.prompts))))[:NAMER_TEXTS]
    return [group[k].steered[i].text for i, k in turns], [group[k].unsteered[i].text for i, k in turns]


def _label(named: Sequence[tuple[_Named, str]]) -> str:
    """From what its signs do: "German", "Poem (-)", "Poem (+), German (-)"; weak ones only where there is no other."""
    strong = [(own, title) for own, title in named if not is_weak(own.share)]
    shown = strong or named[:1]
    titles = list(dict.fromkeys(title for _, title in shown))
    if len(titles) == 1 and any(own.effect.scale > 0 for own, _ in shown):
        return titles[0]
    return ", ".join(f"{title} ({'+' if own.effect.scale > 0 else '-'})" for own, title in shown)


def _examples(table: EffectTable, effect: Effect) -> list[Example]:
    """The coherent answers that lie farthest from the unsteered ones, two at most; to harmless prompts if there are."""
    pairs = list(zip(effect.prompts, effect.steered, effect.unsteered, strict=True))
    harmful = [table.users[p] in REFUSED for p, *_ in pairs]
    if not all(harmful):
        pairs = [pair for pair, bad in zip(pairs, harmful, strict=True) if not bad]
    pairs.sort(key=lambda pair: (-pair[1].coherence * pair[1].change, pair[0]))
    return [Example(table.users[p], effect.scale, s.text, u.text) for p, s, u in pairs[:2]]
