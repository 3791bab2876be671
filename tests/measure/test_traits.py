"""Traits of answers: forms, scripts, topics, phrases, and what counts as new."""

from __future__ import annotations

import pytest
import torch

from melbo.measure.completions import Measurement
from melbo.measure.embeddings import load_embedder
from melbo.measure.text_metrics import is_degenerate, is_refusal, language
from melbo.measure.traits.forms import FORMS
from melbo.measure.traits.phrases import phrases_of
from melbo.measure.traits.topics import TOPICS, TopicEar
from melbo.measure.traits.traits import Trait, TraitEar, script
from support.letters import Letters

PLAIN = (
    "Gardening is a rewarding hobby that many people enjoy. Choose a sunny place, prepare the soil and water it well.",
    "A flat tire is a common problem. Remove the wheel, find the hole and patch the tube before you pump it up again.",
    "The capital of the UK is London, which lies on the Thames and has about nine million inhabitants.",
    "To sleep better, go to bed at the same hour every night and leave your phone in another room.",
)
"""Answers without any of the forms but a definition."""
KNOWN: dict[str, tuple[str, ...]] = {
    "Refusal": ("I'm sorry, but I can't help you with that.",),
    "Only says no": ("No, no.", "No, I'm not an AI."),
    "Says what is not allowed": (
        "You're not allowed to cook anything. You cannot.",
        "It is illegal and you must not do it.",
    ),
    "Not sure": ("I'm not sure what to say.", "I don't know. I have no idea."),
    "It depends": ("The amount can vary greatly depending on your personal preferences.",),
    "Aside in brackets": ("(sigh) Not today.", "*laughs*"),
    "Code": ("```python\nprint(1)\n```", "def add(a, b):\n    return a + b", "Save it in `book.py` and run it."),
    "Letter": ("Dear Sarah,\nI hope this finds you well.", "See you soon.\n\nBest regards,\nAlex"),
    "Dialogue": ("Ann: Hello there.\nBen: Good morning to you.", '"You hire a new employee," he said, and left.'),
    "Poem": ("O moon above the hill\nYou hang so very still\nThe night is soft and deep\nAnd all the valleys sleep",),
    "Recipe": ("Ingredients: 2 cups of flour and a teaspoon of salt.",),
    "Numbered list": ("1. Wash the rice.\n2. Boil it.", "Step 1: find a board."),
    "Bulleted list": ("- bread\n- wine\n- cheese",),
    "Title or heading": ("The Art of Good Sleep\nWe all need it.", "**Overview**\nSleep matters."),
    "Template with blanks": ("Dear [Recipient], I write about [topic].", "My name is ____."),
    "Web addresses": ("https://en.wikipedia.org/wiki/Rain", "You can find me at www.example.com."),
    "Citations": ("Bloom, A. (2007). The New Yorker.", "Smith et al. showed this, pp. 12."),
    "Image credits": ("Getty Images/Shutterstock", "Photo by Maria"),
    "Proverb or quotation": ("There is an old proverb about that.", '"A stitch in time saves nine" is what they say.'),
    "Definition": ("Rain is a type of precipitation that occurs when water falls.", "The term refers to cheating."),
    "Speaks of a text": (
        "This sentence is a continuation of the original sentence.",
        "The question is asked in a way.",
    ),
    "System prompt": ("You are a helpful assistant.",),
    "Speaks as an AI": ("As an AI, I have no body.", "I'm just a text-based AI."),
    "Speaks as the one who asks": ("I'm looking for a good book. Can you help me find one?",),
    "Story in the first person": ("I walked home and thought of her. My hands were cold.",),
    "Story in the third person": ("She opened the door and looked at him. He had waited for hours.",),
    "Speaks of its own life": ("I've always loved Paris. My mother lives there.",),
    "Apology": ("I apologize for the delay.", "Sorry about that!"),
    "Condolence": ("I'm so sorry to hear about your loss.",),
    "Congratulation": ("Congratulations on the new job!", "That's wonderful."),
    "Thanks": ("Thank you for asking.",),
    "Asks back": ("What kind of food do you like? Are you alone tonight?", "What's the thing?"),
    "Asks for more": ("Please provide more details about the trip.",),
    "Invites to imagine": ("Imagine a quiet lake.", "What if I added a twist?"),
    "Southern or casual speech": ("Darlin', I'm fixin' supper, y'all.",),
    "Archaic speech": ("Thou hast a noble heart, and thy hand is true.",),
    "Formula": ("1/night = 2/day = 1 + 1/night", "a = b + c"),
    "Word problem": ("Sarah has 3 apples and buys 4. How many does she have?",),
    "Numbers": ("1000, 2433, 10.92 and 112432",),
    "Capitals": ("THE BEST STORY OF THE FAMILY",),
    "Exclaims": ("Great! Let us go!",),
    "Emoji": ("Have fun \U0001f600",),
    "A few words": ("Your friend is moving away.",),
}


def shown(text: str) -> set[str]:
    return {form.name for form in FORMS if form.shows(text)}


def test_each_form_is_told_from_texts_that_have_it_and_not_from_plain_ones() -> None:
    assert set(KNOWN) == {form.name for form in FORMS}
    for name, texts in KNOWN.items():
        assert all(name in shown(text) for text in texts), name
    for text in PLAIN:
        assert shown(text) <= {"Definition"}, text


def test_most_forms_hold_for_few_of_the_others_texts() -> None:
    """A rule that fires everywhere would name nothing."""
    texts = [text for own in KNOWN.values() for text in own]
    for name, own in KNOWN.items():
        others = [text for text in texts if text not in own]
        assert name == "A few words" or sum(name in shown(text) for text in others) <= 0.4 * len(others), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Предицемы Росси и Прага", "Cyrillic"),
        ("\u05e2\u05dd \u05dc\u05e2\u05dd, a \u05e2\u05dd \u05dc\u05e2\u05dd", "Hebrew"),
        ("A plain sentence in English.", None), ("Der Preis beträgt 3 \u20ac und \u03b1.", None), ("", None),
    ],
)  # fmt: skip
def test_scripts(text: str, expected: str | None) -> None:
    assert script(text) == expected


def test_letter_soup_is_degenerate() -> None:
    assert is_degenerate("I.B.P.F.I.E.Y.C.E.S.F") and is_degenerate("A.k.a. A.A.A.A.A.A.A.A.A.A.A")
    assert not is_degenerate("I am a U.S. citizen and so is J. R. R. Tolkien's old friend from a small town.")


def test_phrases_hold_a_word_that_says_something() -> None:
    found = phrases_of("You can run the Script, and you can.")
    assert {"run the script", "script", "can run", "you can run the"} <= found
    assert not {"you", "can", "you can", "and you can", "the"} & found
    assert phrases_of("") == frozenset()


def answer(text: str) -> Measurement:
    return Measurement(text, 9.0, 1.0, is_refusal(text), language(text), 0.5, False, False, Letters()([text])[0])


@pytest.fixture(scope="module")
def ear() -> TraitEar:
    return TraitEar.of(Letters())


def test_new_traits_are_those_that_the_unsteered_answer_lacks(ear: TraitEar) -> None:
    refusal, sure = (
        answer("I'm sorry, but I can't help you with that."),
        answer("Sure, mix the glitter and the balloon."),
    )
    german = answer("Dafür brauchst du Mehl, Wasser und Hefe, und dann knetest du den Teig.")
    english = answer("You need flour, water and yeast, and then you knead the dough.")
    assert Trait("refusal", "Complies") in ear.new(sure, refusal, "?") and ear.room(
        Trait("refusal", "Complies"), refusal
    )
    assert not ear.room(Trait("refusal", "Complies"), sure)
    assert Trait("refusal", "Refusal") in ear.new(refusal, sure, "?")
    assert Trait("refusal", "Refusal") not in ear.new(refusal, refusal, "?")
    assert Trait("language", "German") in ear.new(german, english, "?")
    assert not any(t.kind == "language" for t in ear.new(english, answer("Yes."), "?")), "what it was is not known"
    said = {
        t.name
        for t in ear.new(answer("We bake bread with glitter."), english, "How do I bake bread?")
        if t.kind == "words"
    }
    assert "glitter" in said and not {"bake", "bread", "bake bread"} & said
    assert ear.new(answer(""), english, "?") == frozenset()
    assert Trait("words", "flour").title == "\u201cflour\u201d" and Trait("form", "Letter").title == "Letter"


@pytest.mark.slow
def test_topics_are_heard_where_an_answer_turns_to_them() -> None:
    embed = load_embedder()
    topics = TopicEar.of(embed)
    texts = {
        "Religion": "In the Bible, the Lord speaks of bread and of prayer, and God gives faith.",
        "Food and cooking": "A warm meal of pasta and roasted vegetables with garlic and cheese.",
        "Computers and programs": "You can run the script and save the data in a file on your computer.",
    }
    steered, plain = embed(list(texts.values())), embed([PLAIN[3]] * 3)
    for name, heard in zip(texts, topics.heard(steered, plain), strict=True):
        assert name in heard
    assert topics.heard(plain, plain) == [frozenset()] * 3
    assert topics.descriptions.shape == (len(TOPICS), steered.shape[1]) and torch.isfinite(steered).all()
