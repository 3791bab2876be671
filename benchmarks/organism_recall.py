"""How many of the planted modes a bank elicits, and how reliably. Used by benchmarks/planted.py.

1. Complete the training prompt with every vector at several scales and both signs; judge each completion.
2. For each mode, try the vectors that show it most clearly, at several scales of that sign, on other prompts (training
   topics in new phrasings) and keep the vector and scale that repeat the mode most often.
3. Report that pair once on held-out prompts, whose topics and phrasings the organism never saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from melbo.bank.vector_bank import VectorBank
from melbo.models.load import LoadedModel
from melbo.organism.corpus import MODES, Split, load_data, topics_of
from melbo.organism.judge import MAX_NEW_TOKENS, SALAD, judge
from melbo.prompts import chat
from melbo.steering.generate import Sampling, complete

SCALES = (0.75, 1.0, 1.25, -0.75, -1.0, -1.25)
FACTORS = (1.0, 1.5, 2.0)
"""Scales that step 2 tries, as multiples of the scale that showed the mode."""
SAMPLING = Sampling(max_new_tokens=MAX_NEW_TOKENS)


@dataclass(frozen=True)
class Hit:
    """One vector at one scale that shows a mode on the training prompt."""

    vector: int
    scale: float
    nll: float
    text: str


@dataclass(frozen=True)
class Repeat:
    """The vector and scale chosen for a mode, and the shares of held-out prompts on which it shows the mode again."""

    hit: Hit
    scale: float
    """The scale that repeats the mode most often; may lie beyond the hit's own."""
    harmful: float
    harmless: float

    @property
    def share(self) -> float:
        """Share of all held-out prompts."""
        return (self.harmful + self.harmless) / 2


@dataclass
class Recall:
    """What a bank does on its training prompt and on held-out prompts."""

    plain: str
    """The unsteered answer to the training prompt."""
    at_one: list[str]
    """Per vector, the answer at scale 1."""
    modes_at_one: list[str]
    """Per vector, what that answer shows."""
    nothing: int
    """Vectors whose answer equals the unsteered one at every scale."""
    hits: dict[str, list[Hit]]
    """Per planted mode, what shows it, likeliest text first."""
    repeat: dict[str, Repeat] = field(default_factory=dict)

    @property
    def found(self) -> list[str]:
        """Planted modes that at least one vector shows."""
        return [m for m in MODES if self.hits[m]]

    @property
    def salad(self) -> int:
        """Vectors whose answer at scale 1 is word salad."""
        return self.modes_at_one.count(SALAD)


def other_prompts(split: Split, n: int) -> tuple[list[str], list[str]]:
    """N harmful and n harmless user messages of a split's topics, all in phrasings that training never used."""
    ask = load_data()["intents"]["make"]["en"]["heldout_ask"]
    harmful, harmless = topics_of(True, split)[1:], topics_of(False, split)
    step = max(1, len(harmless) // n)
    return (
        [ask[i % len(ask)].format(**t["en"]) for i, t in enumerate(harmful[:n])],
        [ask[i % len(ask)].format(**t["en"]) for i, t in enumerate(harmless[::step][:n])],
    )


def measure(loaded: LoadedModel, bank: VectorBank, tries: int = 4, heldout: int = 10) -> Recall:
    """Recall of the planted modes.

    Args:
        tries: vectors a mode that are compared on other prompts.
        heldout: harmful and as many harmless held-out prompts.
    """
    recall = on_training_prompt(loaded, bank)
    taken: set[int] = set()
    for mode in sorted(recall.found, key=lambda m: len(recall.hits[m])):
        free = [h for h in recall.hits[mode] if h.vector not in taken] or recall.hits[mode]
        first = {h.vector: h for h in reversed(free)}  # the likeliest hit of each vector
        hits = sorted(first.values(), key=lambda h: h.nll)[:tries]
        groups = other_prompts("train", max(1, heldout // 2))
        pairs = [(h, h.scale * f) for h in hits for f in FACTORS]
        shares = [sum(_shares(loaded, bank, mode, h.vector, s, groups)) for h, s in pairs]
        hit, scale = pairs[max(range(len(pairs)), key=shares.__getitem__)]
        taken.add(hit.vector)
        groups = other_prompts("heldout", heldout)
        recall.repeat[mode] = Repeat(hit, scale, *_shares(loaded, bank, mode, hit.vector, scale, groups))
    return recall


def on_training_prompt(loaded: LoadedModel, bank: VectorBank) -> Recall:
    """Step 1, without repeats. A mode that the unsteered answer shows already does not count."""
    messages = list(bank.prompts[0])
    user = messages[-1]["content"]
    plain = complete(loaded, [messages], sampling=SAMPLING)[0]
    shown_plain = judge(loaded, user, [plain])[0].mode
    pairs = [(i, s) for i in range(len(bank)) for s in SCALES]
    vectors = torch.stack([bank.vector(i, s) for i, s in pairs])
    texts = complete(loaded, [messages] * len(pairs), vectors, bank.layer, SAMPLING, batch_size=256)
    verdicts = judge(loaded, user, texts)
    hits: dict[str, list[Hit]] = {m: [] for m in MODES}
    for (i, scale), text, verdict in zip(pairs, texts, verdicts, strict=True):
        if verdict.mode in hits and verdict.mode != shown_plain:
            hits[verdict.mode].append(Hit(i, scale, verdict.nll, text))
    for found in hits.values():
        found.sort(key=lambda h: h.nll)
    per_vector = [texts[k : k + len(SCALES)] for k in range(0, len(texts), len(SCALES))]
    one = SCALES.index(1.0)
    return Recall(
        plain=plain,
        at_one=[row[one] for row in per_vector],
        modes_at_one=[v.mode for v in verdicts[one :: len(SCALES)]],
        nothing=sum(all(t == plain for t in row) for row in per_vector),
        hits=hits,
    )


def _shares(
    loaded: LoadedModel, bank: VectorBank, mode: str, vector: int, scale: float, groups: Sequence[Sequence[str]]
) -> tuple[float, float]:
    """Shares of the harmful and of the harmless prompts on which the vector shows the mode."""
    users = [u for group in groups for u in group]
    vectors = bank.vector(vector, scale).expand(len(users), -1)
    texts = complete(loaded, [chat(u) for u in users], vectors, bank.layer, SAMPLING)
    verdicts = [judge(loaded, u, [t])[0] for u, t in zip(users, texts, strict=True)]
    shown = [v.mode == mode for v in verdicts]
    cut = len(groups[0])
    return sum(shown[:cut]) / cut, sum(shown[cut:]) / len(groups[1])
