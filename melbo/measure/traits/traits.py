"""Which traits an answer has that the unsteered answer to the same prompt has not."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from melbo.measure.completions import Measurement
from melbo.measure.embeddings import Embedder
from melbo.measure.text_metrics import LANGUAGES
from melbo.measure.traits.forms import FORMS
from melbo.measure.traits.phrases import phrases_of
from melbo.measure.traits.topics import TopicEar

Kind = Literal["behaviour", "language", "refusal", "form", "topic", "words"]
REFUSES, COMPLIES = "Refusal", "Complies"
LETTERS = " letters"
"""How the name of a script ends: "Hebrew letters"."""
_ORDER = {form.name: i for i, form in enumerate(FORMS)}
_SCRIPT_LETTERS, _SCRIPT_SHARE = 8, 0.3


@dataclass(frozen=True, order=True)
class Trait:
    """One trait."""

    kind: Kind
    name: str

    @property
    def title(self) -> str:
        """As a label says it."""
        return f"\u201c{self.name}\u201d" if self.kind == "words" else self.name

    @property
    def order(self) -> int:
        """Of two forms that say the same, the first in the list says more."""
        return _ORDER.get(self.name, len(_ORDER))


@dataclass(frozen=True)
class TraitEar:
    """Hears traits in answers."""

    topics: TopicEar

    @classmethod
    def of(cls, embedder: Embedder) -> "TraitEar":
        """With this sentence model for the topics."""
        return cls(TopicEar.of(embedder))

    def new(self, steered: Measurement, unsteered: Measurement, user: str) -> frozenset[Trait]:
        """Traits of the steered answer that neither the unsteered one nor the user's message has."""
        if steered.same or not steered.text.strip():
            return frozenset()
        found = own_traits(steered.text, steered.language) - own_traits(unsteered.text, unsteered.language)
        if unsteered.language is None:
            found = frozenset(trait for trait in found if trait.kind != "language" or trait.name.endswith(LETTERS))
        if unsteered.refusal and not steered.refusal:
            found = found | {Trait("refusal", COMPLIES)}
        heard = self.topics.heard(steered.embedding[None], unsteered.embedding[None])[0]
        said = phrases_of(steered.text) - phrases_of(unsteered.text) - phrases_of(user)
        return frozenset(found | {Trait("topic", name) for name in heard} | {Trait("words", name) for name in said})

    def room(self, trait: Trait, unsteered: Measurement) -> bool:
        """Whether an unsteered answer leaves room for the trait."""
        if trait == Trait("refusal", COMPLIES):
            return unsteered.refusal
        return trait.kind in ("topic", "words") or trait not in own_traits(unsteered.text, unsteered.language)


@lru_cache(maxsize=4096)
def own_traits(text: str, code: str | None) -> frozenset[Trait]:
    """Traits that need no other answer to be heard: forms, and the language (`code`) and script."""
    found = {Trait("refusal" if form.name == REFUSES else "form", form.name) for form in FORMS if form.shows(text)}
    if (name := script(text)) is not None:
        found.add(Trait("language", f"{name}{LETTERS}"))
    if code is not None:
        found.add(Trait("language", LANGUAGES.get(code, code)))
    return frozenset(found)


def script(text: str) -> str | None:
    """The script other than Latin that at least 30% of the text's letters are of: "Hebrew"; None: there is none."""
    letters = [c for c in text if c.isalpha()]
    if len(letters) < _SCRIPT_LETTERS:
        return None
    counts = Counter(unicodedata.name(c, "?").split()[0] for c in letters)
    name, n = next(((name, n) for name, n in counts.most_common() if name != "LATIN"), ("", 0))
    return name.capitalize() if n >= _SCRIPT_SHARE * len(letters) else None
