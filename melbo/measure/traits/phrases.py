"""Phrases: runs of one to four words of a text, in lower case."""

import re
from functools import cache

from melbo.runs.optional import needs

LONGEST = 4
"""Words."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@cache
def _stop_words() -> frozenset[str]:
    with needs("measure"):
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | {"i'm", "it's", "i've", "you're", "that's", "i'll", "don't", "i'd", "we're"}


def phrases_of(text: str) -> frozenset[str]:
    """The text's phrases that hold a word which is no stop word and no number."""
    words = [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]
    stop = _stop_words()
    content = [len(word) > 1 and word not in stop and not word.isdigit() for word in words]
    return frozenset(
        " ".join(words[i : i + n])
        for n in range(1, LONGEST + 1)
        for i in range(len(words) - n + 1)
        if any(content[i : i + n])
    )
