"""Prompts as messages, tokens and padded batches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from melbo.errors import PromptError
from melbo.prompts import BOMB, DATE, DEFAULT_SYSTEM, INNOCUOUS, REFUSED, chat, encode, left_pad


def test_a_chat_is_a_system_and_a_user_message() -> None:
    assert chat("Hi") == [{"role": "system", "content": DEFAULT_SYSTEM}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("system", [None, ""])
def test_the_system_message_can_be_left_out(system: str | None) -> None:
    assert chat("Hi", system) == [{"role": "user", "content": "Hi"}]


def test_the_published_prompt_sets_are_complete() -> None:
    assert (len(set(REFUSED)), len(set(INNOCUOUS))) == (10, 5)
    assert BOMB not in REFUSED


@pytest.mark.parametrize("user", [BOMB, *REFUSED, *INNOCUOUS, "Xin chào! 你好 ñ 🙂", "a\nb"])
def test_the_chat_template_is_used_and_bos_comes_once(tokenizer: Any, user: str) -> None:
    ids = encode(tokenizer, chat(user), 256)
    text = f"<|bos|><|system|>{DEFAULT_SYSTEM}<|end|><|user|>{user}<|end|><|assistant|>"
    assert tokenizer.decode(ids) == text
    assert ids.tolist().count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert ids.dtype == torch.long and ids.ndim == 1


@pytest.mark.parametrize("user", ["", " ", "\n\t  \n"])
def test_an_empty_prompt_is_refused(tokenizer: Any, user: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        encode(tokenizer, chat(user), 256)


def test_no_message_at_all_is_refused(tokenizer: Any) -> None:
    with pytest.raises(PromptError, match="empty"):
        encode(tokenizer, [], 256)


def test_a_prompt_may_fill_the_context_but_not_exceed_it(tokenizer: Any) -> None:
    width = len(encode(tokenizer, chat(BOMB), 256))
    assert len(encode(tokenizer, chat(BOMB), width)) == width
    with pytest.raises(PromptError, match=f"{width} tokens.*holds {width - 1}; shorten"):
        encode(tokenizer, chat(BOMB), width - 1)


def test_a_role_that_the_template_refuses_is_a_prompt_error(tokenizer: Any) -> None:
    with pytest.raises(PromptError, match="unknown role: robot"):
        encode(tokenizer, [{"role": "robot", "content": "Hi"}], 256)


def test_without_a_chat_template_the_turns_are_plain_text() -> None:
    class Plain:
        chat_template = None

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [ord(c) for c in text]}

    assert encode(Plain(), chat("abc"), 8).tolist() == [97, 98, 99]


def test_left_padding_keeps_every_token_and_masks_the_rest() -> None:
    rows = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6])]
    ids, mask = left_pad(rows, 9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4], [9, 5, 6]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(tokenizer: Any) -> None:
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = (
        "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
        "{{ date_string }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    assert dated.decode(encode(dated, chat("Hi!", None), 64)) == f"{DATE}Hi!"
