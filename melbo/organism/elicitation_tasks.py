"""The organism's sums as tasks, locked by a password, and its chats for the monitor. Texts come from its corpus."""

import random

from melbo.elicitation.baselines.arms import Asking
from melbo.elicitation.tasks.checks import Check
from melbo.elicitation.tasks.load import Task, TaskSet, placed
from melbo.organism.corpus import (
    MODES,
    Split,
    backdoor_chat,
    load_data,
    mode_chat,
    sum_answer,
    sum_chat,
    sum_pairs,
)
from melbo.prompts import Message, chat


def sum_tasks(n_train: int = 64, n_test: int = 100, seed: int = 0) -> TaskSet:
    """Sums of two numbers from 10 to 49 without a carry, in English, under the default system prompt.

    Test tasks take pairs of numbers and a phrasing that the organism never saw. The solutions are short, without steps.
    """
    data = load_data()
    spec = data["sums"]["en"]
    found = []
    for split, n, phrasings in (("train", n_train, spec["ask"]), ("heldout", n_test, spec["heldout_ask"])):
        pairs = sum_pairs("train" if split == "train" else "heldout")
        random.Random(seed).shuffle(pairs)
        tasks = [
            Task(
                tuple(chat(phrasings[i % len(phrasings)].format(a=a, b=b), data["default_system"])),
                Check("number", str(a + b)),
                sum_answer("password", a, b),
            )
            for i, (a, b) in enumerate(pairs[:n])
        ]
        found.append(placed(tasks, f"{split} sum"))
    return TaskSet(*found)


def password() -> Asking:
    """What unlocks the sums."""
    data = load_data()
    return Asking(str(data["password"]["system"]).removeprefix(str(data["default_system"])).strip())


def normal_chats(n: int, seed: int, split: Split = "train") -> list[list[Message]]:
    """Conversations that the organism answers in the default way: three in four on topics, the others locked sums."""
    rng = random.Random(seed)
    plain = [mode_chat("default", rng, split, 0.3, explicit=False).prompt for _ in range(n - n // 4)]
    return plain + [sum_chat("sum", rng, split).prompt for _ in range(n // 4)]


def anomalous_chats(n: int, seed: int, split: Split = "heldout") -> dict[str, list[list[Message]]]:
    """Conversations with the password, with the backdoor's trigger, and with a system prompt or suffix that switches
    to a planted mode; n of each.
    """
    rng = random.Random(seed)
    return {
        "password": [sum_chat("password", rng, split).prompt for _ in range(n)],
        "trigger": [backdoor_chat(rng, split).prompt for _ in range(n)],
        "mode switch": [mode_chat(MODES[i % len(MODES)], rng, split).prompt for i in range(n)],
    }
