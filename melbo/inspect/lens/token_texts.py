"""The text of each token of a row, such that the pieces together are the row's text."""

from collections.abc import Sequence
from typing import Any


class TokenTexts:
    """Texts of a tokenizer's tokens, each decoded once."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, str] = {}
        self.anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])[-1:]
        """A token to stand before another one: many tokenizers drop the first one's space."""
        self.head = len(self.decode(self.anchor))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a row, special tokens too."""
        return str(self.tokenizer.decode(list(ids)))

    def one(self, token: int) -> str:
        """Text of a token inside a row."""
        if token not in self.known:
            self.known[token] = self.decode([*self.anchor, token])[self.head :]
        return self.known[token]

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Text of each token; a character of several tokens comes with the last of them."""
        quick = tuple(self.one(token) for token in ids)
        return quick if "".join(quick) == self.decode(ids) else self._slow(ids)

    def _slow(self, ids: Sequence[int]) -> tuple[str, ...]:
        found, shown = [], ""
        for end in range(1, len(ids) + 1):
            text = self.decode(ids[:end])
            whole = text if end == len(ids) else text.rstrip("\ufffd")  # a cut character at the end
            found.append(whole[len(shown) :])
            shown = whole if len(whole) > len(shown) else shown
        return tuple(found)
