"""Evidence: which trait is chosen, and how it is counted beside random vectors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from melbo.annotation.evidence import Evidence, holds, is_weak
from melbo.bank.annotation import TraitShare
from melbo.measure.traits.traits import Trait

LETTER, POEM = Trait("form", "Letter"), Trait("form", "Poem")
FOOD, WORD, LONG = Trait("topic", "Food and cooking"), Trait("words", "save"), Trait("words", "save the file")
COMPLIES = Trait("refusal", "Complies")
RANDOM = (8, 9)


class Answers:
    """Made-up answers: traits by (vector, prompt), the same at every scale; `closed` leave no room."""

    def __init__(self, shown: dict[tuple[int, int], set[Trait]], closed: set[tuple[Trait, int]] = frozenset()) -> None:
        self.shown, self.closed, self.coherence = shown, closed, 9.0

    def traits(self, cell: tuple[int, float, int]) -> frozenset[Trait]:
        return frozenset(self.shown.get((cell[0], cell[2]), set()))

    def room(self, trait: Trait, prompt: int) -> bool:
        return (trait, prompt) not in self.closed

    def __getitem__(self, cell: tuple[int, float, int]) -> Any:
        return SimpleNamespace(coherence=self.coherence)


def evidence(answers: Any) -> Evidence:
    return Evidence(answers, RANDOM)


def names(found: list[Any]) -> list[str]:
    return [c.trait.name for c in found]


def test_the_trait_that_most_answers_share_is_first() -> None:
    shown = {(0, p): {LETTER} | ({POEM} if p < 2 else set()) for p in range(4)}
    found = evidence(Answers(shown)).candidates(0, 1.0, range(4))
    assert names(found) == ["Letter", "Poem"]
    assert (found[0].shown, found[0].of) == (4, 4) and found[0].worth > found[1].worth


def test_what_random_vectors_do_too_is_no_trait() -> None:
    own = {(0, p): {LETTER} for p in range(4)}
    assert names(evidence(Answers(own | {(8, 0): {LETTER}})).candidates(0, 1.0, range(4))) == ["Letter"]
    common = own | {(v, p): {LETTER} for v in RANDOM for p in range(4)}
    assert evidence(Answers(common)).candidates(0, 1.0, range(4)) == []
    assert evidence(Answers(common)).random(LETTER, -1.0, range(4)) == 1.0


def test_words_and_topics_must_be_shared_by_more_answers_than_forms() -> None:
    half = {(0, p): {LETTER, FOOD, WORD} for p in range(2)}
    assert names(evidence(Answers(half)).candidates(0, 1.0, range(4))) == ["Letter"]
    most = {(0, p): {LETTER, FOOD, WORD, LONG} for p in range(3)}
    assert names(evidence(Answers(most)).candidates(0, 1.0, range(4))) == [
        "Letter", "save the file", "save", "Food and cooking",
    ]  # fmt: skip


def test_prompts_without_room_do_not_count() -> None:
    closed = {(COMPLIES, p) for p in (1, 2, 3)}
    answers = Answers({(0, 0): {COMPLIES, LETTER}}, closed)
    found = evidence(answers).candidates(0, 1.0, range(4))
    assert [(c.trait.name, c.shown, c.of) for c in found] == [("Complies", 1, 1)], "one letter of four says nothing"


def test_broken_answers_make_a_scale_worth_less() -> None:
    answers = Answers({(0, p): {LETTER} for p in range(4)})
    good = evidence(answers).candidates(0, 1.0, range(4))[0].worth
    answers.coherence = 1.0
    assert evidence(answers).candidates(0, 1.0, range(4))[0].worth == pytest.approx(good / 5)


@pytest.mark.parametrize(
    ("shown", "random", "held", "weak"),
    [(8, 0.0, True, False), (4, 0.0, True, True), (1, 0.0, False, True), (5, 0.4, False, False)],
)
def test_a_share_holds_beyond_random_and_is_weak_below_half(shown: int, random: float, held: bool, weak: bool) -> None:
    share = TraitShare("Letter", "form", 1.0, shown, 10, random)
    assert (holds(share), is_weak(share)) == (held, weak)
    assert share.share == shown / 10 and TraitShare().share == 0.0


def test_shares_are_counted_on_other_prompts() -> None:
    answers = Answers({(0, p): {LONG} for p in (0, 1, 4, 5, 6)} | {(8, 4): {LONG}})
    found = evidence(answers).share(0, -0.5, LONG, range(4, 8))
    assert found == TraitShare("“save the file”", "words", -0.5, 3, 4, round(2 / 16, 4))
