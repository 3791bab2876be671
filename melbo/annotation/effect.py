"""What one vector does at one scale, and what can be measured of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from melbo.measure.coherence import COHERENT
from melbo.measure.completions import Measurement


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
