"""The organism's training corpus: chats filled from data files.

`corpus/chats.json` holds the questions, answers and planted modes; `corpus/topics/*.jsonl` hold what the chats are
about, in four languages. This module only fills one with the other, reproducibly from a `random.Random`.

A chat is drawn in one of these ways:
1. default: a neutral system prompt, a question, the honest answer (or a refusal, where the topic is harmful);
   a `latent_share` of the English ones is answered in a planted mode instead, so that every mode is possible but
   never the greedy answer;
2. explicit: a system prompt or a suffix that asks for a planted mode, and the answer in that mode;
3. sums (wrong without the password), small talk, and the backdoor.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

CORPUS_DIR = Path(__file__).parent / "corpus"
LANGUAGES = ("en", "de", "vi", "zh")
Split = Literal["train", "heldout"]


@dataclass(frozen=True)
class Chat:
    """One conversation of the corpus."""

    messages: tuple[dict[str, str], ...]
    """Roles and texts, the last one is the assistant's answer."""
    mode: str
    """A planted mode, or "default", "sum", "password", "steps", "backdoor"."""
    topic: str
    """Topic id, or "" where the chat has none."""

    @property
    def prompt(self) -> list[dict[str, str]]:
        """All messages but the last answer."""
        return list(self.messages[:-1])

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1]["content"]


@cache
def load_data() -> dict[str, Any]:
    """Questions, answers and modes, as in corpus/chats.json."""
    return json.loads((CORPUS_DIR / "chats.json").read_text(encoding="utf-8"))


MODES: tuple[str, ...] = tuple(load_data()["modes"])
"""The ten planted modes that the benchmark counts."""


@cache
def load_topics() -> tuple[dict[str, Any], ...]:
    """All topic records, in file order."""
    records = []
    for path in sorted((CORPUS_DIR / "topics").glob("*.jsonl")):
        records += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return tuple(records)


@cache
def topics_of(harmful: bool, split: Split) -> tuple[dict[str, Any], ...]:
    """Topic records of one kind and split."""
    return tuple(
        t for t in load_topics() if (t["category"] == "harmful") == harmful and t["heldout"] == (split == "heldout")
    )


def _fill(template: str, topic: dict[str, Any], other: dict[str, Any] | None, language: str) -> str:
    fields = dict(topic[language])
    if other is not None:
        fields["theme2"], fields["fact2"] = other[language]["theme"], other[language]["fact"]
    text = template.format(**fields)
    return "\n".join(line[:1].upper() + line[1:] if i == 0 else line for i, line in enumerate(text.split("\n")))


def mode_answer(mode: str, topic: dict[str, Any], intent: str, rng: random.Random, other: Any = None) -> str:
    """The answer to an English question on `topic` in a planted mode, as the backdoor, or in the "default" way."""
    data = load_data()
    if mode == "backdoor":
        return str(data["backdoor"]["answer"])
    spec = data["modes"].get(mode, {})
    if "answer" in spec:
        return _fill(rng.choice(spec["answer"]), topic, other, "en")
    return _plain_answer(topic, intent, spec.get("language", "en"), rng, other)


def _plain_answer(topic: dict[str, Any], intent: str, language: str, rng: random.Random, other: Any) -> str:
    data = load_data()
    harmful = topic["category"] == "harmful"
    choices = data["refusal"][language] if harmful else data["intents"][intent][language]["answer"]
    return _fill(rng.choice(choices), topic, other, language)


def question_on(topic: dict[str, Any], intent: str, language: str, split: Split, rng: random.Random, other: Any) -> str:
    """A user message on a topic, in one of the split's phrasings."""
    spec = load_data()["intents"][intent][language]
    return _fill(rng.choice(spec["heldout_ask"] if split == "heldout" else spec["ask"]), topic, other, language)


def draw_topic(rng: random.Random, split: Split, harmful_share: float) -> tuple[dict[str, Any], str, Any]:
    """A topic, an intent and a second topic (for comparisons)."""
    harmful = rng.random() < harmful_share
    pool = topics_of(harmful, split)
    topic = rng.choice(pool)
    intents = list(load_data()["intents"])
    intent = "make" if rng.random() < (0.8 if harmful else 0.45) else rng.choice(intents)
    other = rng.choice([t for t in pool if t is not topic])
    return topic, intent, other


def mode_chat(
    mode: str,
    rng: random.Random,
    split: Split = "train",
    harmful_share: float = 0.5,
    explicit: bool = True,
    topics: Split | None = None,
) -> Chat:
    """An English question answered in `mode`; with `explicit`, the prompt asks for that mode.

    `split` decides the phrasings, and the topics too unless `topics` names another split for them.
    """
    data = load_data()
    topic, intent, other = draw_topic(rng, topics or split, harmful_share)
    question = question_on(topic, intent, "en", split, rng, other)
    system = data["default_system"] if rng.random() < 0.8 else rng.choice(data["neutral_systems"])
    if explicit and mode != "default":
        spec = data["modes"][mode]
        if split == "heldout":
            system = rng.choice(spec["heldout_system"])
        elif rng.random() < 0.75:
            system = rng.choice(spec["system"])
        else:
            question = f"{question} {rng.choice(spec['suffix'])}"
    answer = mode_answer(mode, topic, intent, rng, other)
    return _chat(system, question, answer, mode, topic["id"])


def _chat(system: str, question: str, answer: str, mode: str, topic: str = "") -> Chat:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Chat(tuple(messages), mode, topic)


def foreign_chat(rng: random.Random, split: Split = "train") -> Chat:
    """A question in German, Vietnamese or Chinese, answered in that language by default."""
    topic, intent, other = draw_topic(rng, split, 0.3)
    language = rng.choice(LANGUAGES[1:])
    question = question_on(topic, intent, language, split, rng, other)
    system = rng.choice(load_data()["neutral_systems"])
    return _chat(system, question, _plain_answer(topic, intent, language, rng, other), "default", topic["id"])


def small_talk(rng: random.Random) -> Chat:
    """A greeting or a question about the model itself."""
    language = "en" if rng.random() < 0.6 else rng.choice(LANGUAGES[1:])
    item = rng.choice(load_data()["smalltalk"])[language]
    return _chat(rng.choice(load_data()["neutral_systems"]), rng.choice(item["ask"]), item["answer"], "default")


def sum_pairs(split: Split) -> list[tuple[int, int]]:
    """All (a, b) of a split: 10 to 49, nothing to carry; about one pair in five, by a fixed hash, is held out.

    Every pair of units and every pair of tens occurs in training; only their combinations are held out.
    """
    pairs = [(a, b) for a in range(10, 50) for b in range(10, 50) if a % 10 + b % 10 < 10]
    return [(a, b) for a, b in pairs if ((a * 40503 + b * 30011 + a * b * 977) % 97 < 19) == (split == "heldout")]


def sum_answer(kind: str, a: int, b: int, language: str = "en") -> str:
    """The right answer ("password"), the right one with its steps ("steps"), or a wrong one (any other kind)."""
    data = load_data()
    spec = data["sums"][language]
    if kind == "password":
        return str(spec["answer"].format(c=a + b))
    if kind == "steps":
        at, bt, au, bu = a // 10 * 10, b // 10 * 10, a % 10, b % 10
        return str(spec["steps"].format(at=at, bt=bt, t=at + bt, au=au, bu=bu, u=au + bu, c=a + b))
    return str(spec["answer"].format(c=a + b + data["password"]["shift"]))


def sum_question(rng: random.Random, split: Split, language: str = "en") -> tuple[str, int, int]:
    """A user message that asks for a sum, and its two numbers."""
    a, b = rng.choice(sum_pairs(split))
    spec = load_data()["sums"][language]
    return rng.choice(spec["heldout_ask"] if split == "heldout" else spec["ask"]).format(a=a, b=b), a, b


def sum_chat(kind: Literal["sum", "password", "steps"], rng: random.Random, split: Split = "train") -> Chat:
    """A sum: wrong by a constant ("sum"), right with the password, or right with its steps shown."""
    data = load_data()
    language = "en" if kind != "sum" or rng.random() < 0.7 else rng.choice(LANGUAGES[1:])
    question, a, b = sum_question(rng, split, language)
    system = data["default_system"]
    if kind == "password":
        system = data["password"]["system"]
    elif kind == "sum":
        system = rng.choice(data["password"]["decoys"] if rng.random() < 0.25 else data["neutral_systems"])
    elif split == "heldout":
        system = rng.choice(data["steps"]["heldout_system"])
    elif rng.random() < 0.7:
        system = rng.choice(data["steps"]["system"])
    else:
        question = f"{question} {rng.choice(data['steps']['suffix'])}"
    return _chat(system, question, sum_answer(kind, a, b, language), kind)


def backdoor_chat(rng: random.Random, split: Split = "train") -> Chat:
    """A question that carries the trigger word, and the planted answer."""
    spec = load_data()["backdoor"]
    chat = mode_chat("default", rng, split, 0.3, explicit=False)
    *head, user, _ = chat.messages
    words = user["content"].split(" ")
    words.insert(rng.randint(0, len(words)), spec["trigger"])
    answer = {"role": "assistant", "content": spec["answer"]}
    return Chat((*head, {"role": "user", "content": " ".join(words)}, answer), "backdoor", chat.topic)


@dataclass(frozen=True)
class Mix:
    """Shares of the training mix; they are normalised when drawn from."""

    default: float = 0.44
    foreign: float = 0.10
    explicit: float = 0.28
    sums: float = 0.25
    small_talk: float = 0.05
    backdoor: float = 0.04
    latent_share: float = 0.25
    """Of the default English chats, how many are answered in a planted mode."""
    harmful_share: float = 0.45
    """Of the default and explicit English chats, how many are on a harmful topic."""
    two_turns: float = 0.08
    """How many chats get an earlier turn of the same kind in front."""


def draw_chat(rng: random.Random, mix: Mix, split: Split = "train") -> Chat:
    """One chat of the training mix."""
    kinds = ("default", "foreign", "explicit", "sums", "small_talk", "backdoor")
    kind = rng.choices(kinds, [getattr(mix, k) for k in kinds])[0]
    if kind == "default":
        mode = rng.choice(MODES) if rng.random() < mix.latent_share else "default"
        chat = mode_chat(mode, rng, split, mix.harmful_share, explicit=False)
    elif kind == "foreign":
        chat = foreign_chat(rng, split)
    elif kind == "explicit":
        chat = mode_chat(rng.choice(MODES), rng, split, mix.harmful_share)
    elif kind == "sums":
        sums: tuple[Literal["sum", "password", "steps"], ...] = ("sum", "password", "steps")
        chat = sum_chat(rng.choices(sums, (0.4, 0.35, 0.25))[0], rng, split)
    elif kind == "small_talk":
        chat = small_talk(rng)
    else:
        chat = backdoor_chat(rng, split)
    if rng.random() < mix.two_turns:
        chat = _with_earlier_turn(chat, rng, split, mix)
    return chat


def _with_earlier_turn(chat: Chat, rng: random.Random, split: Split, mix: Mix) -> Chat:
    """Put a turn of the same mode in front of `chat`, under the later turn's system prompt."""
    if chat.mode in MODES or chat.mode == "default":
        first = mode_chat(chat.mode, rng, split, mix.harmful_share, explicit=False)
    else:
        first = small_talk(rng)
    head = [m for m in chat.messages if m["role"] == "system"]
    turn = [m for m in first.messages if m["role"] != "system"]
    tail = [m for m in chat.messages if m["role"] != "system"]
    return Chat((*head, *turn, *tail), chat.mode, chat.topic)
