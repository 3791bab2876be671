"""Which vectors do the same, and what to call it.

1. An effect is what one vector does at one sign's best scale: the answers that it changes, beside the unsteered ones.
2. Effects are clustered (average linkage on Euclidean distance, scikit-learn) by the mean change of the answers'
   sentence embeddings, and by how often the answers switch to each language and to or from a refusal.
3. A cluster's name says what can be measured (language, refusals, loops), then its distinguishing terms: class-based
   TF-IDF (Grootendorst 2022, https://arxiv.org/abs/2203.05794) against the other clusters and the unsteered answers.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.measure.completions import Measurement
from melbo.runs.optional import needs

DISTANCE = 0.9
"""Clusters are merged while their mean distance is below this. Two effects whose embeddings change in opposite
directions are 2 apart, unrelated ones about 1.4, a complete switch to another language adds 1.4."""
COHERENT = 4.0
"""Least mean coherence (0 to 10) of an effect that is not called incoherent."""
TERMS = 3
"""Terms in a name."""
LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""English names of common languages; others go by their code."""
_WORD = re.compile(r"[^\W\d_]{2,}(?:'[^\W\d_]+)?")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]+")


@dataclass(frozen=True)
class Effect:
    """The answers that a vector changes at one scale."""

    vector: int
    scale: float
    prompts: tuple[int, ...]
    """Prompts whose answers change."""
    steered: tuple[Measurement, ...]
    unsteered: tuple[Measurement, ...]

    @property
    def coherence(self) -> float:
        """Mean coherence of the changed answers, 0 to 10."""
        return sum(m.coherence for m in self.steered) / len(self.steered)


def tags_of(effects: Sequence[Effect]) -> tuple[str, ...]:
    """What can be measured of effects taken together: "language:de", "non-refusal", "refuses", "degenerate",
    "incoherent". Each holds for at least half of the answers to which it can apply.
    """
    pairs = [pair for e in effects for pair in zip(e.steered, e.unsteered, strict=True)]
    tags = []
    switched = Counter(s.language for s, u in pairs if s.language and s.language != u.language)
    if switched and 2 * switched.most_common(1)[0][1] >= len(pairs):
        tags.append(f"language:{switched.most_common(1)[0][0]}")
    refused = [s.refusal for s, u in pairs if u.refusal]
    answered = [s.refusal for s, u in pairs if not u.refusal]
    if refused and 2 * sum(refused) <= len(refused):
        tags.append("non-refusal")
    if answered and 2 * sum(answered) >= len(answered):
        tags.append("refuses")
    if 2 * sum(s.degenerate for s, _ in pairs) >= len(pairs):
        tags.append("degenerate")
    elif sum(s.coherence for s, _ in pairs) / len(pairs) < COHERENT:
        tags.append("incoherent")
    return tuple(tags)


def clusters_of(effects: Sequence[Effect]) -> list[int]:
    """Number of each effect's cluster, 0 for the first effect's."""
    if len(effects) < 2:
        return [0] * len(effects)
    with needs("measure"):
        from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(n_clusters=None, distance_threshold=DISTANCE, linkage="average")
    found = model.fit_predict(features(effects).numpy()).tolist()
    order = {name: i for i, name in enumerate(dict.fromkeys(found))}
    return [order[name] for name in found]


def features(effects: Sequence[Effect]) -> Tensor:
    """[effects, dimensions] float64: the unit mean change of the embeddings, the share of answers that switch to each
    language, and the share that stop or start to refuse.
    """
    languages = sorted({s.language for e in effects for s in e.steered if s.language})
    rows = []
    for effect in effects:
        pairs = list(zip(effect.steered, effect.unsteered, strict=True))
        change = torch.stack([(s.embedding - u.embedding).double() for s, u in pairs]).mean(dim=0)
        shares = [sum(s.language == name != u.language for s, u in pairs) for name in languages]
        refusals = sum(int(s.refusal) - int(u.refusal) for s, u in pairs)
        counts = torch.tensor([*shares, refusals], dtype=torch.float64) / len(pairs)
        rows.append(torch.cat([change / change.norm().clamp_min(1e-12), counts]))
    return torch.stack(rows)


def names_of(effects: Sequence[Effect], clusters: Sequence[int]) -> list[str]:
    """A name for each cluster, such as 'German', 'Non-refusal: sure, here' or 'Refuses: ask, somebody'."""
    groups = [
        [e for e, c in zip(effects, clusters, strict=True) if c == k] for k in range(max(clusters, default=-1) + 1)
    ]
    terms = distinguishing_terms(groups)
    return [_name(tags_of(group), words) for group, words in zip(groups, terms, strict=True)]


def _name(tags: Sequence[str], terms: Sequence[str]) -> str:
    code = next((t.removeprefix("language:") for t in tags if t.startswith("language:")), None)
    for tag, name in (("degenerate", "Degenerate"), ("incoherent", "Incoherent")):
        if tag in tags:
            return name
    parts = [LANGUAGES.get(code, code)] if code else []
    parts += [name for tag, name in (("non-refusal", "Non-refusal"), ("refuses", "Refuses")) if tag in tags]
    head = ", ".join(parts) or "Other answer"
    return f"{head}: {', '.join(terms)}" if terms else head


def distinguishing_terms(groups: Sequence[Sequence[Effect]], n: int = TERMS) -> list[list[str]]:
    """The n words of each group that set it apart: weight tf * log(1 + A / f), with tf the share of the group's answers
    that hold the word, f the sum of these shares over all groups and the unsteered answers, A the mean number of words
    an answer. Words that occur in answers to one prompt only are its topic, and left out where the group answers more.
    """
    documents = [[(p, words(m.text)) for e in g for p, m in zip(e.prompts, e.steered, strict=True)] for g in groups]
    plain = {(p, m.text): words(m.text) for g in groups for e in g for p, m in zip(e.prompts, e.unsteered, strict=True)}
    shares = [_shares([w for _, w in rows]) for rows in [*documents, [(0, w) for w in plain.values()]]]
    total: Counter[str] = Counter()
    for share in shares:
        total.update(share)
    size = sum(sum(share.values()) for share in shares) / max(1, len(shares))
    found = []
    for rows, share in zip(documents, shares[:-1], strict=True):
        many = len({p for p, _ in rows}) > 1
        common = {w for w in share if not many or len({p for p, held in rows if w in held}) > 1}
        weight = {w: share[w] * math.log(1 + size / total[w]) for w in common if share[w] > 2 * shares[-1].get(w, 0.0)}
        found.append(sorted(weight, key=lambda w: (-weight[w], w))[:n])
    return found


def _shares(documents: Sequence[set[str]]) -> dict[str, float]:
    counts = Counter(w for held in documents for w in held)
    return {w: c / len(documents) for w, c in counts.items()}


def words(text: str) -> set[str]:
    """Lower-case words of two letters or more; Chinese by pairs of characters."""
    found = set(_WORD.findall(_HAN.sub(" ", text.replace("\u2019", "'")).lower()))
    return found | {run[i : i + 2] for run in _HAN.findall(text) for i in range(max(1, len(run) - 1))}
