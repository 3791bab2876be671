"""What the word "organism" stands for at the command line and in the app: the embedded model, its chats, its contrasts.

Below them nothing knows the word: algorithms take a model, a corpus, contrasts and a judge, whoever made them.
"""

import random
from collections.abc import Iterator
from itertools import cycle, islice

from melbo.errors import CorpusError
from melbo.inspect.geometry.difference_of_means import Contrast, Prompt
from melbo.inspect.max_activating.corpus_reader import Corpus, Document, Item, open_corpus
from melbo.organism.corpus import MODES, Split, mode_chat

ORGANISM = "organism"
"""Name of the embedded model, of its corpus, of its contrasts and of its SAE."""
CHATS = 2200
"""Chats of its corpus where no limit is given."""


def find_corpus(source: str, *, limit: int | None = None, split: str = "train") -> Corpus:
    """The organism's chats by its name; any other source as `open_corpus` reads it.

    Args:
        limit: most documents; None: all, of the organism CHATS.
        split: of a Hub data set, or of the organism's chats ("train", "heldout").

    Raises:
        CorpusError: as `open_corpus`; or the organism has no such split.
    """
    if source == ORGANISM:
        return organism_corpus(CHATS if limit is None else limit, split=split)
    return open_corpus(source, limit=limit, split=split)


def organism_corpus(n: int, seed: int = 0, split: str = "train") -> Corpus:
    """N chats of the organism, one planted mode after another and the default one, each asked for by its prompt.

    Every document's mark is its mode.

    Raises:
        CorpusError: n is below 1, or another split than "train" and "heldout".
    """
    splits: dict[str, Split] = {"train": "train", "heldout": "heldout"}
    if split not in splits:
        raise CorpusError(f"the organism's corpus has no split {split!r}; use 'train' or 'heldout'.")
    if n < 1:
        raise CorpusError(f"the limit is {n}; ask for at least 1 document.")

    def read() -> Iterator[Item]:
        rng = random.Random(seed)
        for mode in islice(cycle((*MODES, "default")), n):
            yield Document(messages=mode_chat(mode, rng, splits[split]).messages, mark=mode)

    return Corpus(f"{ORGANISM} ({split})", read, f"{n} chats, seed {seed}")


def organism_contrasts(n: int = 40, seed: int = 0) -> tuple[Contrast, ...]:
    """For each planted mode, n held-out questions with a prompt that asks for it, and n plain ones."""

    def prompts(mode: str) -> tuple[Prompt, ...]:
        rng = random.Random(seed)
        return tuple(tuple(mode_chat(mode, rng, "heldout").prompt) for _ in range(n))

    plain = prompts("default")
    return tuple(Contrast(mode, prompts(mode), plain) for mode in MODES)
