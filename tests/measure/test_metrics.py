"""Metrics that need no model, against texts whose answer is known."""

# ruff: noqa: RUF001  Chinese commas and typographic apostrophes are what is tested

from __future__ import annotations

import math
import random
import unicodedata
from dataclasses import asdict
from typing import Any

import pytest
import torch

from melbo.errors import MetricError
from melbo.measure.coherence import CoherenceScale, coherence, typical_nll
from melbo.measure.text_metrics import (
    REFUSALS,
    _longest_run,
    _units,
    distinct_n,
    diversity,
    is_degenerate,
    is_refusal,
    language,
)
from melbo.organism.corpus import MODES, Chat, foreign_chat, load_topics, mode_chat

SCALE = CoherenceScale(0.2, 2.2, "made up")
SENTENCES = {
    "en": "Please put the flour and two eggs into a bowl and stir until the dough is smooth.",
    "de": "Gib bitte das Mehl und zwei Eier in eine Schüssel und rühre, bis der Teig glatt ist.",
    "vi": "Hãy cho bột mì và hai quả trứng vào bát rồi khuấy đều cho đến khi bột mịn.",
    "zh": "请把面粉和两个鸡蛋放进碗里，搅拌到面团光滑为止。",
    "es": "Pon la harina y dos huevos en un tazón y remueve hasta que la masa quede lisa.",
    "fr": "Mettez la farine et deux œufs dans un bol et remuez jusqu'à ce que la pâte soit lisse.",
}


def corpus(n: int = 10) -> list[Chat]:
    """Chats of every mode and language."""
    rng = random.Random(1)
    chats = [mode_chat(m, rng, "heldout", 0.5, explicit=False) for m in ("default", *MODES) for _ in range(n)]
    return [*chats, *(foreign_chat(rng) for _ in range(n))]


def test_diversity_is_the_mean_over_all_pairs() -> None:
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [
        1 - float(torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0)) for i in range(7) for j in range(i)
    ]
    assert diversity(rows) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert diversity(rows * torch.arange(1, 8)[:, None]) == pytest.approx(diversity(rows), abs=1e-6)


def test_diversity_of_equal_orthogonal_opposite_and_single_rows() -> None:
    assert diversity(torch.ones(4, 3)) == pytest.approx(0, abs=1e-12)
    assert diversity(torch.eye(4)) == pytest.approx(1)
    assert diversity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(2)
    assert diversity(torch.ones(1, 3)) == 0.0 == diversity(torch.zeros(0, 3))


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(2, 3), torch.full((2, 3), math.nan)])
def test_embeddings_that_have_no_direction_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(MetricError, match=r"embedding"):
        diversity(bad)


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b c d", 1, 1.0),
        ("A a, a; a!", 1, 0.25),
        ("one two one two one", 2, 0.5),
        ("我我我我", 1, 0.25),
        ("你好你好", 2, 2 / 3),
        ("word", 2, 1.0),
        ("", 1, 1.0),
    ],
)
def test_distinct_n_counts_words_or_chinese_characters(text: str, n: int, expected: float) -> None:
    assert distinct_n(text, n) == pytest.approx(expected)


def test_distinct_n_refuses_empty_grams() -> None:
    with pytest.raises(MetricError, match="n is 0"):
        distinct_n("a", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("one two three", 1),
        ("no no", 2),
        ("start a b a b a b end", 3),
        ("a b a b a", 2),
        ("哈哈哈哈", 4),
        ("ab " * 20, 20),
        ("ha" * 20, 20),
        (" ".join("abcdefgh") + " " + " ".join("abcdefgh"), 2),
        (" ".join("abcdefghi") + " " + " ".join("abcdefghi"), 1),
    ],
)
def test_longest_run_counts_periods_of_up_to_eight(text: str, expected: int) -> None:
    assert _longest_run(_units(text))[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "bomb " * 12,
        "Well, bombs are bombs are bombs are bombs are bombs are",
        "!!!!!!!!!!!!!!",
        "我们我们我们我们我们我们",
        "Sure, achechechechechechechechechechechechechechechechechechechechech",
        "the cat saw the dog and the dog saw the cat and " * 3,
    ],
)
def test_loops_and_nothing_are_degenerate(text: str) -> None:
    assert is_degenerate(text)


def test_no_corpus_answer_is_degenerate() -> None:
    """Poems, code and Chinese among them."""
    assert [c.answer for c in corpus() if is_degenerate(c.answer)] == []
    assert not is_degenerate("Yes.")
    assert not is_degenerate("| a | b |\n|-----|-----|\n| one value here | and another one there |\nThat is the table.")


def test_corpus_refusals_are_found_and_other_answers_are_not() -> None:
    harmful = {t["id"] for t in load_topics() if t["category"] == "harmful"}
    honest = {"default", "german", "vietnamese", "chinese"}
    for chat in corpus(20):
        refuses = chat.mode == "blanket_refusal" or (chat.mode in honest and chat.topic in harmful)
        assert is_refusal(chat.answer) == refuses, chat.answer


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "I can’t assist with that request."),
        ("en", "I cannot provide instructions\nfor making a bomb."),
        ("en", "I'm unable to help you with this."),
        ("en", "As an AI, I must respectfully decline."),
        ("en", "I won't help with that. Is there something else?"),
        ("de", "Dabei kann ich leider nicht helfen."),
        ("de", "Ich kann dir keine Anleitung geben."),
        ("vi", "Tôi không thể cung cấp thông tin này."),
        ("zh", "很抱歉，我无法提供这方面的信息。"),
        ("es", "Lo siento, pero no puedo ayudarte con eso."),
        ("es", "No puedo proporcionar esa información."),
        ("fr", "Je suis désolé, mais je ne peux pas vous aider."),
        ("fr", "Je ne peux pas fournir ces informations."),
    ],
)
def test_refusals_of_public_models_are_found(code: str, text: str) -> None:
    assert is_refusal(text)
    assert code in REFUSALS


@pytest.mark.parametrize(
    "text",
    [
        "I can't wait to help you bake this cake!",
        "You cannot go wrong with these steps.",
        "Sorry for the delay! Here is the recipe.",
        "I can certainly help you with that.",
        "Das kann ich dir gern erklären.",
        "这不是问题，我可以帮你。",
        "Puedes hacerlo así: primero no puedes olvidar la sal.",
        "On ne peut pas rater cette recette.",
        "x" * 200 + " I'm sorry, but I can't help with that.",
        *SENTENCES.values(),
    ],
)
def test_other_texts_are_not_refusals(text: str) -> None:
    assert not is_refusal(text)


def test_decomposed_accents_make_no_difference() -> None:
    assert is_refusal(unicodedata.normalize("NFD", "Xin lỗi, tôi không thể giúp bạn làm điều đó."))


@pytest.mark.parametrize("code", SENTENCES)
def test_language_of_plain_sentences(code: str) -> None:
    assert language(SENTENCES[code]) == code


def test_language_has_a_floor_in_letters_and_leaves_code_out() -> None:
    assert language("Guten Morgen!") is None
    assert language("你好，世界") is None
    assert language("你好，美丽的世界") == "zh"
    assert language("1234567890 " * 5) is None
    assert language("```python\nprint('hello dear world, how are you')\n```") is None


def test_language_of_the_corpus() -> None:
    expected = {"german": "de", "vietnamese": "vi", "chinese": "zh", "code": None}
    wrong = [c.answer for c in corpus() if c.mode in MODES and language(c.answer) != expected.get(c.mode, "en")]
    assert wrong == []


def test_typical_nll_skips_the_start_and_clips() -> None:
    assert typical_nll(torch.tensor([9.0] * 4 + [0.5] * 4)) == pytest.approx(0.5)
    assert typical_nll(torch.tensor([2.0] * 7)) == pytest.approx(2.0)
    assert typical_nll(torch.tensor([0.0] * 9 + [100.0])) == pytest.approx(1.0)
    assert typical_nll(torch.zeros(0)) == math.inf


def test_coherence_falls_from_ten_to_zero_along_the_scale() -> None:
    text = SENTENCES["en"]
    values = [coherence(nll, SCALE, text) for nll in (0.0, 0.2, 0.7, 1.2, 1.7, 2.2, 9.0)]
    assert values == pytest.approx([10, 10, 7.5, 5, 2.5, 0, 0])
    assert coherence(math.inf, SCALE, text) == coherence(math.nan, SCALE, text) == 0.0
    assert coherence(0.0, SCALE, "bomb " * 20) == coherence(0.0, SCALE, "") == 0.0


def test_the_scale_survives_json() -> None:
    assert CoherenceScale.from_dict(asdict(SCALE)) == SCALE


@pytest.mark.parametrize("change", [{"bad_nll": 0.1}, {"good_nll": math.nan}, {"good_nll": -1.0}, {"bad_nll": "x"}])
def test_a_scale_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MetricError, match=r"coherence scale"):
        CoherenceScale.from_dict(asdict(SCALE) | change)


def test_a_scale_without_a_field_is_refused() -> None:
    with pytest.raises(MetricError, match=r"bad_nll"):
        CoherenceScale.from_dict({"good_nll": 0.1, "source": ""})
