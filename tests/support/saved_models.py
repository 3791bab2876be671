"""Tiny random models of several architectures, saved as checkpoints."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

SHAPE: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 192, "initializer_range": 0.2,
}  # fmt: skip
SAVED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SHAPE),
    "qwen2": ("Qwen2Config", SHAPE | {"num_hidden_layers": 5}),
    "gpt2": ("GPT2Config", {"n_embd": 40, "n_layer": 4, "n_head": 4, "n_positions": 192, "initializer_range": 0.2}),
    "gemma2": ("Gemma2Config", SHAPE | {"head_dim": 12, "query_pre_attn_scalar": 12, "num_hidden_layers": 4}),
}
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
"""How Gemma's chat template begins."""


def save_tiny(folder: Path, name: str, tokenizer: Any) -> Path:
    """A checkpoint of `SAVED[name]` with the tokenizer, in `folder`/name."""
    kind, settings = SAVED[name]
    own = deepcopy(tokenizer)
    if name == "gemma2":
        own.chat_template = NO_SYSTEM + own.chat_template
    special = {"pad_token_id": own.pad_token_id, "bos_token_id": own.bos_token_id, "eos_token_id": own.eos_token_id}
    torch.manual_seed(sorted(SAVED).index(name))
    config = getattr(transformers, kind)(vocab_size=len(own), **special | settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    own.save_pretrained(folder / name)
    return folder / name
