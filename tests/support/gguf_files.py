"""Tiny GGUF files of any family, written from a random model as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from melbo.formats.writers.control_gguf import finish
from melbo.formats.writers.llama_gguf import in_pairs

SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "llama", {}),
    "mistral": ("MistralConfig", "llama", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", "qwen2", {}),
    "qwen3": ("Qwen3Config", "qwen3", {"head_dim": 128}),
    "gemma2": ("Gemma2Config", "gemma2", {"head_dim": 256}),
    "gemma3": ("Gemma3TextConfig", "gemma3", {"head_dim": 256}),
}
"""By name: the config of transformers, the architecture that the file names, and settings."""


def random_model(family: str, tokenizer: Any) -> Any:
    """A random model of a family, large enough weights for distinct logits."""
    kind, _, more = FAMILIES[family]
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **(SMALL | ends | more))
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    family: str,
    architecture: str | None = None,
    with_tokenizer: bool = True,
    quantise: bool = False,
) -> Path:
    """Write a model.

    Args:
        architecture: another than the family's.
        quantise: matrices in Q8_0.
    """
    named = FAMILIES[family][1]
    c = model.config
    writer = gguf.GGUFWriter(path, architecture or named)
    writer.add_name(f"tiny {family}")
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(1_000_000.0 if family == "gemma3" else 10_000.0)
    writer.add_vocab_size(c.vocab_size)
    if "head_dim" in FAMILIES[family][2]:
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if with_tokenizer:
        (_add_gemma_tokenizer if named.startswith("gemma") else _add_tokenizer)(writer, tokenizer)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, named.upper()), c.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        if named == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = in_pairs(weight, c.num_attention_heads if "q_proj" in name else c.num_key_value_heads)
        values = weight.float().numpy()
        if named.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        values = np.ascontiguousarray(values)
        if quantise and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stored, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, values)
    finish(writer)
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    known = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {t["content"] for t in known["added_tokens"]}
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    kinds = (gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(list(kinds))
    merges = known["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def _add_gemma_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    """A sentencepiece vocabulary of as many tokens: specials, bytes, letters and pairs of letters, best first."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    octets = [f"<0x{i:02X}>" for i in range(256)]
    letters = ["\u2581", "\n", *(chr(i) for i in range(33, 127))]
    pairs = [a + b for a in "\u2581etaoinsh" for b in "etaoinshrdlu"]
    tokens = [*special, *octets, *letters, *pairs]
    tokens += [f"<unused{i}>" for i in range(len(tokenizer) - len(tokens))]
    kinds = {**dict.fromkeys(special, gguf.TokenType.CONTROL), **dict.fromkeys(octets, gguf.TokenType.BYTE)}
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types([kinds.get(t, gguf.TokenType.NORMAL) for t in tokens])
    for add, token in (
        (writer.add_pad_token_id, 0), (writer.add_eos_token_id, 1), (writer.add_bos_token_id, 2),
        (writer.add_unk_token_id, 3),
    ):  # fmt: skip
        add(token)
    writer.add_chat_template(GEMMA_TEMPLATE)
