"""Passages: the token rows that a corpus is run in, and batches of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from melbo.errors import PromptError
from melbo.inspect.max_activating.corpus_reader import Corpus, Document, Skip
from melbo.models.load import LoadedModel
from melbo.prompts import encode
from melbo.steering.hooks import capture, check_residual, run_until_stop

Where = Literal["all", "answer", "decision"]
CHUNK = 256
"""Passages that are sorted by length together, and after which a checkpoint may be written."""


@dataclass(frozen=True)
class Passage:
    """One row of tokens."""

    ids: tuple[int, ...]
    start: int
    """First position that counts."""
    stop: int
    """One past the last position that counts."""
    mark: str = ""


Group = list[tuple[int, Passage]]
"""Passages of one forward pass, each with its number in the corpus."""


def read_passages(
    loaded: LoadedModel, corpus: Corpus, where: Where, window: int, skip_tokens: int
) -> Iterator[Passage | Skip]:
    """The corpus in token rows: a chat is one row, a text is cut into rows of `window` tokens.

    Args:
        where: positions that count. "all": all but a row's first `skip_tokens`; "answer": those of a chat's last
            answer; "decision": a chat's last position before that answer, where the model settles what kind of answer
            it gives. In plain text all positions count.
        window: most tokens of a row of plain text; chats go up to the model's context.
    """
    for item in corpus.read():
        if isinstance(item, Skip):
            yield item
        elif item.messages:
            yield _chat_passage(loaded, item, where, skip_tokens)
        else:
            ids = loaded.tokenizer(item.text)["input_ids"]
            for begin in range(0, len(ids), window):
                row = tuple(ids[begin : begin + window])
                if len(row) > skip_tokens:
                    yield Passage(row, skip_tokens, len(row), item.mark)


def _chat_passage(loaded: LoadedModel, item: Document, where: Where, skip_tokens: int) -> Passage | Skip:
    answered = item.messages[-1]["role"] == "assistant"
    prompt, answer = (item.messages[:-1], item.messages[-1]["content"]) if answered else (item.messages, "")
    try:
        head = encode(loaded.tokenizer, prompt, loaded.context).tolist()
    except PromptError:
        return Skip("chats that are empty, too long, or not for this chat template")
    tail = loaded.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []
    ids = (*head, *tail)[: loaded.context]
    start, stop = {
        "all": (skip_tokens, len(ids)),
        "answer": (len(head), len(ids)),
        "decision": (len(head) - 1, len(head)),
    }[where]
    return Passage(ids, start, stop, item.mark) if start < stop else Skip("chats without a position that counts")


def batches(chunk: Iterable[Passage | Skip], batch_tokens: int, first: int = 0) -> Iterator[Group]:
    """Passages of similar length together, at most `batch_tokens` padded tokens (or one row) each.

    Args:
        first: number of the chunk's first passage.
    """
    passages = enumerate((item for item in chunk if isinstance(item, Passage)), first)
    group: Group = []
    for number, passage in sorted(passages, key=lambda pair: pair[1].stop):  # stable: equal lengths keep their order
        if group and (len(group) + 1) * passage.stop > batch_tokens:
            yield group
            group = []
        group.append((number, passage))
    if group:
        yield group


def chunks(passages: Iterator[Passage | Skip]) -> Iterator[list[Passage | Skip]]:
    """Lists of CHUNK, the last one shorter."""
    while part := list(islice(passages, CHUNK)):
        yield part


def activations(loaded: LoadedModel, group: Group, layer: int) -> tuple[Tensor, Tensor]:
    """Residual stream [B, T, d_model], float32, at a layer, and which positions count [B, T].

    The rows are padded on the right, and T goes up to the last position that counts.
    """
    width = max(passage.stop for _, passage in group)
    ids = torch.full((len(group), width), loaded.tokenizer.pad_token_id)
    mask = torch.zeros(len(group), width, dtype=torch.long)
    counted = torch.zeros(len(group), width, dtype=torch.bool)
    for i, (_, passage) in enumerate(group):
        ids[i, : passage.stop] = torch.tensor(passage.ids[: passage.stop])
        mask[i, : passage.stop] = 1
        counted[i, passage.start : passage.stop] = True
    with torch.inference_mode(), capture(loaded, [layer]) as found:
        run_until_stop(loaded, ids, mask)
    check_residual(loaded, found[layer])
    hidden = found[layer].float()
    return hidden, counted.to(hidden.device)
