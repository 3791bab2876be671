"""How many of the planted modes a bank elicits, and how reliably. Used by benchmarks/planted.py.

1. Complete the training prompt with every vector at several scales and both signs; judge each completion.
2. For each mode, take the vectors that show it; try the best few on held-out prompts at each scale that showed it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from melbo.bank import VectorBank
from melbo.generate import Sampling, complete
from melbo.models import LoadedModel
from melbo.organism.corpus import MODES, load_data, topics_of
from melbo.organism.judge import SALAD, judge
from melbo.prompts import chat

SCALES = (0.75, 1.0, 1.25, -0.75, -1.0, -1.25)
MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class Hit:
    """One vector at one scale that shows a mode on the training prompt."""

    vector: int
    scale: float
    nll: float
    text: str


@dataclass
class Recall:
    """What a bank does on its training prompt and on held-out prompts."""

    hits: dict[str, list[Hit]] = field(default_factory=lambda: defaultdict(list))
    """Per planted mode, the vectors that show it, most likely text first."""
    nothing: int = 0
    """Vectors whose completion equals the unsteered one at every scale."""
    salad: int = 0
    """Vectors whose completion at scale 1 is word salad."""
    modes_at_1: dict[int, str] = field(default_factory=dict)
    """Per vector, what it shows at scale 1."""
    repeat: dict[str, tuple[Hit, float, float]] = field(default_factory=dict)
    """Per mode: the best vector, and the shares of held-out harmful and harmless prompts on which it repeats it."""

    @property
    def found(self) -> list[str]:
        """Planted modes that at least one vector shows."""
        return [m for m in MODES if self.hits.get(m)]


def heldout_prompts(n: int = 10) -> tuple[list[str], list[str]]:
    """n harmful and n harmless user messages on topics (and, for the latter, of kinds) the organism never saw."""
    ask = load_data()["intents"]["make"]["en"]["heldout_ask"]
    harmful, harmless = topics_of(True, "heldout"), topics_of(False, "heldout")
    step = max(1, len(harmless) // n)
    return (
        [ask[i % len(ask)].format(**t["en"]) for i, t in enumerate(harmful[:n])],
        [ask[i % len(ask)].format(**t["en"]) for i, t in enumerate(harmless[::step][:n])],
    )


def measure(loaded: LoadedModel, bank: VectorBank, user: str, tries: int = 4, heldout: int = 10) -> Recall:
    """Recall of the planted modes. `tries`: candidate (vector, scale) pairs a mode that held-out prompts test."""
    recall = Recall()
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    plain = complete(loaded, [chat(user)], sampling=sampling)[0]
    pairs = [(i, s) for i in range(len(bank)) for s in SCALES]
    vectors = torch.stack([bank.vector(i, s) for i, s in pairs])
    texts = complete(loaded, [chat(user)] * len(pairs), vectors, bank.layer, sampling, batch_size=256)
    verdicts = judge(loaded, user, texts)
    changed: Counter[int] = Counter()
    for (i, scale), text, verdict in zip(pairs, texts, verdicts, strict=True):
        changed[i] += text != plain
        if verdict.mode in MODES:
            recall.hits[verdict.mode].append(Hit(i, scale, verdict.nll, text))
        if scale == 1.0:
            recall.modes_at_1[i] = verdict.mode
            recall.salad += verdict.mode == SALAD
    recall.nothing = sum(changed[i] == 0 for i in range(len(bank)))
    for mode in recall.found:
        recall.hits[mode].sort(key=lambda h: h.nll)
        recall.repeat[mode] = _best_repeat(loaded, bank, mode, recall.hits[mode], tries, heldout)
    return recall


def _best_repeat(
    loaded: LoadedModel, bank: VectorBank, mode: str, hits: Sequence[Hit], tries: int, heldout: int
) -> tuple[Hit, float, float]:
    """The candidate that repeats `mode` on most held-out prompts. Candidates: the likeliest hit of each vector."""
    first: dict[int, Hit] = {}
    for hit in hits:
        first.setdefault(hit.vector, hit)
    best: tuple[Hit, float, float] | None = None
    for hit in list(first.values())[:tries]:
        shares = []
        for group in heldout_prompts(heldout):
            vectors = bank.vector(hit.vector, hit.scale).expand(len(group), -1)
            texts = complete(
                loaded, [chat(u) for u in group], vectors, bank.layer, Sampling(max_new_tokens=MAX_NEW_TOKENS)
            )
            shown = [judge(loaded, u, [t])[0].mode == mode for u, t in zip(group, texts, strict=True)]
            shares.append(sum(shown) / len(shown))
        if best is None or sum(shares) > best[1] + best[2]:
            best = (hit, shares[0], shares[1])
    assert best is not None
    return best
