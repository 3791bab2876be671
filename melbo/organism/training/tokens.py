"""The organism's tokenizer, byte-level BPE with single digits and a chat template, and batches of its tokens."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from melbo.organism.corpus import Chat, Mix, draw_chat

IGNORE = -100
"""Label of tokens that are not trained."""
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{- '<|bos|>' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{- message['content'] + '<|end|>' -}}{% endgeneration %}"
    "{%- else -%}{{- message['content'] + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(vocab_size: int, seed: int, n_chats: int = 20_000, context: int = 256) -> PreTrainedTokenizerFast:
    """Train the tokenizer on chats of the training mix."""
    rng = random.Random(seed)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (m["content"] for _ in range(n_chats) for m in draw_chat(rng, Mix()).messages)
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL[3:],
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> tuple[list[int], list[int]]:
    """Token ids and labels; labels are IGNORE outside the assistant's tokens."""
    out: Any = tokenizer.apply_chat_template(
        list(chat.messages), return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    labels = [t if m else IGNORE for t, m in zip(out["input_ids"], out["assistant_masks"], strict=True)]
    return list(out["input_ids"]), labels


def pad_batch(rows: list[tuple[list[int], list[int]]], pad: int) -> dict[str, Tensor]:
    """Right-padded tensors input_ids, attention_mask, labels [B, T]."""
    ids = pad_sequence([torch.tensor(row) for row, _ in rows], batch_first=True, padding_value=pad)
    labels = pad_sequence([torch.tensor(row) for _, row in rows], batch_first=True, padding_value=IGNORE)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row, _ in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def batches(
    tokenizer: PreTrainedTokenizerFast, mix: Mix, rng: random.Random, tokens: int
) -> Iterator[dict[str, Tensor]]:
    """Endless batches of chats of similar length, as many in each as fit into `tokens` padded tokens."""
    while True:
        rows = sorted((encode(tokenizer, draw_chat(rng, mix)) for _ in range(512)), key=lambda r: len(r[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield pad_batch(group, tokenizer.pad_token_id)
