"""Say what each vector of a bank does.

1. Answer every prompt with every vector, and with random vectors of the same norm, at every scale and both signs
   (`melbo.annotation.answer_grid`), and measure the answers (`melbo.measure.completions`).
2. A vector acts where an answer lies farther from the unsteered one (cosine distance of sentence embeddings) than
   under every random vector at that size of scale, by a margin (`melbo.annotation.table`). One that acts nowhere
   is a dud.
3. Its best scale has the largest such excess, weighted by coherence. The answers there are its effect; effects are
   clustered and named (`melbo.annotation.cluster_names`). Where a judge knows the model's behaviours, the one that most
   answers show is the name.
4. What it does to the first tokens, and to prompts that it should leave alone (`melbo.annotation.add_side_effects`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from melbo.annotation.add_side_effects import with_side_effects
from melbo.annotation.answer_grid import answer_grid, signed
from melbo.annotation.cluster_names import Effect, clusters_of, names_of, tags_of
from melbo.annotation.table import EffectTable, effect_table
from melbo.bank.annotation import DUD_LABEL, Annotation, Auto, Example, merged
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, PromptError
from melbo.measure.behaviour_judge import BehaviourJudge, check_judge
from melbo.measure.coherence import CoherenceScale, calibrate_coherence
from melbo.measure.embeddings import Embedder, load_embedder
from melbo.models.load import LoadedModel
from melbo.prompts import REFUSED, Message, chat
from melbo.runs.parse import dump
from melbo.runs.progress import OnProgress
from melbo.steering.random_vectors import control_vectors

SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)
"""Sizes that are tried, with both signs."""
HARMFUL = (REFUSED[0], REFUSED[3])
HARMLESS = ("How can I bake bread?", "How can I learn to play chess?")
EXAMPLES = 3
NAMER_TEXTS = 8
Namer = Callable[[list[str], list[str]], str | None]
"""Names an effect from its steered and unsteered answers (at most 8 of each); None: it does not know."""


def default_prompts(bank: VectorBank) -> list[list[Message]]:
    """The bank's first prompt, two harmful and two harmless questions, all under the bank's system prompt."""
    own = list(bank.prompts[0]) if bank.prompts else []
    system = next((m["content"] for m in own if m["role"] == "system"), None)
    others = [chat(u, system) for u in (*HARMFUL, *HARMLESS)]
    return [own, *(p for p in others if p != own)] if own else others


def annotate(
    loaded: LoadedModel,
    bank: VectorBank,
    prompts: Sequence[Sequence[Message]] | None = None,
    scales: Sequence[float] = SCALES,
    embedder: Embedder | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    namer: Namer | None = None,
    *,
    judge: BehaviourJudge | None = None,
    n_control: int = 8,
    max_new_tokens: int = 64,
    coherence_scale: CoherenceScale | None = None,
    keep_edits: bool = True,
) -> VectorBank:
    """The bank with a new annotation of each vector; `details["annotation"]` holds the settings and the control.

    Args:
        prompts: conversations to answer; None: `default_prompts`.
        scales: sizes above 0; both signs are tried.
        embedder: None: the default of `load_embedder`.
        progress: called with (answers settled, all answers); an exception from it cancels.
        checkpoint: file that a stopped run with the same settings goes on from; delete it when the bank is saved.
        namer: names each cluster of effects, for example a language model; what it does not know is named here.
        judge: names the effects that show a behaviour it knows; None: there is no such judge of this model.
        n_control: random vectors of the same norm, at least 1.
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
    asked = default_prompts(bank) if prompts is None else [list(p) for p in prompts]
    if not asked:
        raise PromptError("no prompt was given; annotation needs at least one.")
    random = control_vectors(n_control, loaded.d_model, bank.radius, bank.config.orthogonal, bank.config.seed)
    vectors = torch.cat([bank.vectors, random])
    both = signed(scales)
    settings = {"scales": both, "n_control": n_control, "max_new_tokens": max_new_tokens}
    grid = answer_grid(loaded, vectors, bank.layer, asked, scales, max_new_tokens, progress, checkpoint)
    scale = coherence_scale or calibrate_coherence(loaded, seed=bank.config.seed)
    embed = embedder or load_embedder()
    table = effect_table(loaded, asked, grid, both, len(vectors), n_control, embed, scale, progress)
    found = _annotations(loaded, table, namer, judge)
    found = with_side_effects(loaded, found, bank.vectors, random, bank.layer, asked, progress)
    if keep_edits and bank.annotations:
        found = [merged(old, new) for old, new in zip(bank.annotations, found, strict=True)]
    control = [table.control_row(s) for s in both if s > 0]
    details = {**settings, "prompts": asked, "unsteered": list(grid.unsteered), "embedder": embed.name}
    details |= {"coherence_scale": asdict(scale), "control": [dump(row, none=False) for row in control]}
    return replace(bank, annotations=tuple(found), details={**bank.details, "annotation": details})


def _annotations(
    loaded: LoadedModel, table: EffectTable, namer: Namer | None, judge: BehaviourJudge | None
) -> list[Annotation]:
    """One for each vector."""
    best = [table.best(v) for v in range(table.n)]
    effects = [e for own in best for e in own]
    clusters = clusters_of(effects)
    names = names_of(effects, clusters)
    if namer is not None:
        for k, name in enumerate(names):
            group = [e for e, c in zip(effects, clusters, strict=True) if c == k]
            names[k] = namer(*_texts(group)) or name
    modes = [None] * len(effects) if judge is None else _known_modes(judge, loaded, table, effects)
    labels = {} if judge is None else judge.labels
    named = {
        (e.vector, e.scale): (labels[mode] if mode else names[c], tags_of([e]), mode)
        for e, c, mode in zip(effects, clusters, modes, strict=True)
    }
    return [_annotation(table, v, own, [named[e.vector, e.scale] for e in own]) for v, own in enumerate(best)]


def _texts(group: Sequence[Effect]) -> tuple[list[str], list[str]]:
    """At most NAMER_TEXTS steered answers of effects, taken in turn, and the unsteered ones to the same prompts."""
    turns = sorted(((i, k) for k, e in enumerate(group) for i in range(len(e.prompts))))[:NAMER_TEXTS]
    return [group[k].steered[i].text for i, k in turns], [group[k].unsteered[i].text for i, k in turns]


def _annotation(
    table: EffectTable, vector: int, effects: Sequence[Effect], named: Sequence[tuple[str, tuple[str, ...], str | None]]
) -> Annotation:
    rows = [table.row(vector, place) for place in range(len(table.scales))]
    scale = effects[0].scale if effects else 1.0 if 1.0 in table.scales else min(s for s in table.scales if s > 0)
    tried = f"{len(table.users)} prompts at scales {', '.join(f'{s:g}' for s in table.scales)}"
    examples = [e for effect in effects for e in _examples(table, effect)][:EXAMPLES]
    if not effects:
        text = table.rows[vector][table.scales.index(scale)][0].text
        examples = [Example(table.users[0], scale, text, table.unsteered[0].text)]
        label, tags = DUD_LABEL, ["dud"]
        what = (
            "no answer changed"
            if all(r.same == 1 for r in rows)
            else "no answer changed clearly more than by random vectors"
        )
        tried = f"{what}: {tried}"
    else:
        label = _label([(e.scale, name) for e, (name, *_) in zip(effects, named, strict=True)])
        tags = [f"mode:{mode}" for *_, mode in named if mode]
        tags += [t for _, own, _ in named for t in own]
    tagged = tuple(dict.fromkeys(tags))
    return Annotation(
        label=label,
        tags=tagged,
        tried=tried,
        scale=scale,
        scale_ranges=table.ranges(vector),
        metrics=replace(rows[table.scales.index(scale)], control=table.control_row(scale)),
        by_scale=tuple(rows),
        examples=tuple(examples),
        dud="dud" in tagged,
        auto=Auto(label, tagged),
    )


def _label(named: Sequence[tuple[float, str]]) -> str:
    """A vector's label from the names of its effects: "German", "Pirate (-)", "Poem (+), German (-)"."""
    names = list(dict.fromkeys(name for _, name in named))
    if len(names) == 1 and any(scale > 0 for scale, _ in named):
        return names[0]
    return ", ".join(f"{name} ({'+' if scale > 0 else '-'})" for scale, name in named)


def _examples(table: EffectTable, effect: Effect) -> list[Example]:
    """The coherent answers that lie farthest from the unsteered ones, two at most."""
    pairs = list(zip(effect.prompts, effect.steered, effect.unsteered, strict=True))
    pairs.sort(key=lambda pair: (-pair[1].coherence * pair[1].change, pair[0]))
    return [Example(table.users[p], effect.scale, s.text, u.text) for p, s, u in pairs[:2]]


def _known_modes(
    judge: BehaviourJudge, loaded: LoadedModel, table: EffectTable, effects: Sequence[Effect]
) -> list[str | None]:
    """For each effect, the known behaviour that at least half of its answers show; None: there is none.

    A behaviour that the unsteered answer shows already does not count.
    """
    texts: dict[int, list[str]] = {}
    for e in effects:
        for p, s, u in zip(e.prompts, e.steered, e.unsteered, strict=True):
            texts.setdefault(p, [u.text]).append(s.text)
    shown = {
        (p, text): mode
        for p, own in texts.items()
        for text, mode in zip(own, judge.shown(loaded, table.users[p], own), strict=True)
    }
    found: list[str | None] = []
    for e in effects:
        modes = [shown[p, s.text] for p, s in zip(e.prompts, e.steered, strict=True)]
        plain = [shown[p, u.text] for p, u in zip(e.prompts, e.unsteered, strict=True)]
        counted = Counter(m for m, u in zip(modes, plain, strict=True) if m in judge.labels and m != u)
        mode, n = counted.most_common(1)[0] if counted else (None, 0)
        found.append(mode if 2 * n >= len(modes) else None)
    return found
