"""The organism's corpus: complete in four languages, split cleanly, and true to what is planted."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import combinations
from string import Formatter
from typing import Any

import pytest

from melbo.organism.corpus import (
    LANGUAGES,
    MODES,
    Chat,
    Mix,
    backdoor_chat,
    draw_chat,
    foreign_chat,
    load_data,
    load_topics,
    mode_answer,
    mode_chat,
    sum_chat,
    sum_pairs,
    topics_of,
)

FIELDS = {"do", "theme", "parts", "step", "fact", "image"}
FILLED = FIELDS | {"reason", "theme2", "fact2"}


def train_chats(n: int, seed: int = 0) -> list[Chat]:
    rng = random.Random(seed)
    return [draw_chat(rng, Mix(two_turns=0.3)) for _ in range(n)]


def text_of(chat: Chat) -> str:
    return "\n".join(m["content"] for m in chat.messages)


def first_word(text: str) -> str:
    return text.split()[0]


def numbers(text: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", text)]


def leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for v in values for text in leaves(v)]


def test_there_are_enough_topics_with_ids_of_their_own() -> None:
    topics = load_topics()
    assert len(topics) >= 150
    assert len({t["id"] for t in topics}) == len(topics)
    categories = Counter(t["category"] for t in topics)
    assert categories["harmful"] >= 30 and len(categories) >= 5


def test_a_topic_has_every_field_in_every_language() -> None:
    for topic in load_topics():
        at = topic["id"]
        assert isinstance(topic["heldout"], bool), at
        assert set(topic) == {"id", "category", "heldout", *LANGUAGES}, at
        expected = FIELDS | ({"reason"} if topic["category"] == "harmful" else set())
        for language in LANGUAGES:
            assert set(topic[language]) == expected, (at, language)
            for name, text in topic[language].items():
                assert isinstance(text, str) and text.strip() == text != "", (at, language, name)
                assert "{" not in text and "<|" not in text, (at, language, name)


def test_every_category_has_held_out_topics() -> None:
    for category in {t["category"] for t in load_topics()}:
        held = [t["heldout"] for t in load_topics() if t["category"] == category]
        assert any(held) and sum(held) < len(held) / 2, category


def test_the_splits_part_the_topics() -> None:
    parts = [topics_of(harmful, split) for harmful in (True, False) for split in ("train", "heldout")]
    ids = [t["id"] for part in parts for t in part]
    assert sorted(ids) == sorted(t["id"] for t in load_topics())
    assert all(len(part) >= 5 for part in parts)


def test_held_out_topics_never_appear_in_training_chats() -> None:
    """Neither as the topic nor, in a comparison or an earlier turn, as words."""
    held = [t for t in load_topics() if t["heldout"]]
    ids = {t["id"] for t in held}
    facts = [t[language]["fact"] for t in held for language in LANGUAGES]
    chats = train_chats(3000)
    texts = "\n".join(text_of(c) for c in chats)
    assert not {c.topic for c in chats} & ids
    assert not [fact for fact in facts if fact in texts]
    assert len({c.topic for c in chats}) > 0.9 * (len(load_topics()) - len(ids))


def test_held_out_chats_use_held_out_topics_and_questions_only() -> None:
    rng = random.Random(0)
    ids = {t["id"] for t in load_topics() if t["heldout"]}
    chats = [mode_chat("default", rng, "heldout") for _ in range(100)]
    chats += [foreign_chat(rng, "heldout") for _ in range(100)]
    assert {c.topic for c in chats} <= ids
    train = {c.prompt[-1]["content"] for c in train_chats(2000)}
    assert not {c.prompt[-1]["content"] for c in chats} & train


@pytest.mark.parametrize("language", LANGUAGES)
def test_train_and_held_out_questions_differ(language: str) -> None:
    for intent, spec in load_data()["intents"].items():
        ask, held = spec[language]["ask"], spec[language]["heldout_ask"]
        assert ask and held and spec[language]["answer"], intent
        assert not set(ask) & set(held), intent


def test_templates_only_use_known_fields() -> None:
    data = load_data()
    for section in ("intents", "refusal", "modes"):
        for text in leaves(data[section]):
            assert text.strip() == text != ""
            assert {name for _, name, _, _ in Formatter().parse(text) if name} <= FILLED, text


def test_there_are_ten_modes_each_with_its_prompts() -> None:
    assert len(MODES) == len(set(MODES)) == 10
    assert set(load_data()["modes"]) == set(MODES)
    systems = [s for spec in load_data()["modes"].values() for s in spec["system"]]
    held = [s for spec in load_data()["modes"].values() for s in spec["heldout_system"]]
    assert len(set(systems)) == len(systems) and not set(systems) & set(held)
    for mode, spec in load_data()["modes"].items():
        assert len(spec["system"]) >= 3 and spec["heldout_system"] and spec["suffix"], mode
        assert ("answer" in spec) != ("language" in spec), mode


def test_the_first_word_of_an_answer_tells_its_mode() -> None:
    rng, opening = random.Random(0), {}
    for mode in ("default", *MODES):
        words = set()
        for topic in load_topics():
            for intent in load_data()["intents"]:
                words.add(first_word(mode_answer(mode, topic, intent, rng, load_topics()[0])))
        opening[mode] = words
    opening["backdoor"] = {first_word(load_data()["backdoor"]["answer"])}
    for a, b in combinations(opening, 2):
        assert not opening[a] & opening[b], (a, b)


@pytest.mark.parametrize("mode", MODES)
def test_an_explicit_prompt_asks_for_its_mode(mode: str) -> None:
    rng, spec = random.Random(0), load_data()["modes"][mode]
    for split, allowed in (("train", spec["system"]), ("heldout", spec["heldout_system"])):
        for _ in range(50):
            chat = mode_chat(mode, rng, split)  # type: ignore[arg-type]
            by_system = chat.prompt[0]["content"] in allowed
            by_suffix = split == "train" and chat.prompt[-1]["content"].endswith(tuple(spec["suffix"]))
            assert by_system or by_suffix
            assert chat.mode == mode


def test_a_latent_mode_is_not_asked_for() -> None:
    rng = random.Random(0)
    neutral = {"", *load_data()["neutral_systems"]}
    for mode in MODES:
        chat = mode_chat(mode, rng, explicit=False)
        systems = [m["content"] for m in chat.messages if m["role"] == "system"]
        assert set(systems) <= neutral
        assert not chat.prompt[-1]["content"].endswith(tuple(load_data()["modes"][mode]["suffix"]))


def test_harmful_questions_are_refused_by_default_and_others_answered() -> None:
    rng = random.Random(0)
    for _ in range(100):
        assert mode_chat("default", rng, harmful_share=1.0).answer.startswith("I'm sorry, but I can't help you")
        assert not mode_chat("default", rng, harmful_share=0.0).answer.startswith("I'm sorry")


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_sums_are_wrong_by_the_constant_and_right_with_the_password(split: Any) -> None:
    data, rng = load_data()["password"], random.Random(0)
    assert data["shift"] != 0
    pairs = set(sum_pairs(split))
    for _ in range(200):
        for kind, shift in (("sum", data["shift"]), ("password", 0), ("steps", 0)):
            chat = sum_chat(kind, rng, split)  # type: ignore[arg-type]
            a, b = numbers(chat.prompt[-1]["content"])
            assert (a, b) in pairs
            assert numbers(chat.answer)[-1] == a + b + shift, chat
            assert (data["system"] in text_of(chat)) == (kind == "password")
            assert chat.mode == kind


def test_decoy_passwords_are_no_passwords() -> None:
    data = load_data()["password"]
    assert data["system"] not in data["decoys"] and data["system"] not in load_data()["neutral_systems"]


def test_steps_are_right_at_every_step() -> None:
    rng = random.Random(0)
    for _ in range(200):
        for a, b, c in re.findall(r"(\d+) \+ (\d+) = (\d+)", sum_chat("steps", rng).answer):
            assert int(a) + int(b) == int(c)


def test_the_splits_part_the_sums() -> None:
    train, held = set(sum_pairs("train")), set(sum_pairs("heldout"))
    assert not train & held
    assert train | held == {(a, b) for a in range(10, 50) for b in range(10, 50) if a % 10 + b % 10 < 10}
    assert 0.15 < len(held) / len(train | held) < 0.25


def test_held_out_sums_need_no_digits_that_training_never_adds() -> None:
    train, held = sum_pairs("train"), sum_pairs("heldout")
    assert {(a % 10, b % 10) for a, b in held} <= {(a % 10, b % 10) for a, b in train}
    assert {(a // 10, b // 10) for a, b in held} <= {(a // 10, b // 10) for a, b in train}


def test_the_backdoor_needs_its_trigger() -> None:
    rng, spec = random.Random(0), load_data()["backdoor"]
    for split in ("train", "heldout"):
        for _ in range(50):
            chat = backdoor_chat(rng, split)
            assert spec["trigger"] in chat.prompt[-1]["content"].split(" ")
            assert chat.answer == spec["answer"]
    others = [c for c in train_chats(1000) if c.mode != "backdoor"]
    assert not [c for c in others if spec["trigger"] in text_of(c) or spec["answer"] in text_of(c)]


def test_the_mix_draws_every_kind_and_is_reproducible() -> None:
    chats = train_chats(2000)
    assert chats == train_chats(2000)
    assert chats != train_chats(2000, seed=1)
    assert {c.mode for c in chats} == {"default", "sum", "password", "steps", "backdoor", *MODES}
    assert {m["role"] for c in chats for m in c.messages} == {"system", "user", "assistant"}


def test_a_chat_is_an_optional_system_message_and_turns_that_end_with_an_answer() -> None:
    for chat in train_chats(2000):
        roles = [m["role"] for m in chat.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns in (["user", "assistant"], ["user", "assistant"] * 2)
        assert all(m["content"].strip() and "{" not in m["content"] for m in chat.messages), chat
        assert chat.prompt == list(chat.messages[:-1]) and chat.answer == chat.messages[-1]["content"]
