"""GGUF of a whole Llama-architecture model, in F32 and with its tokenizer, so that llama.cpp computes the same.

For the embedded model and others like it. llama.cpp rotates neighbouring pairs of a head where transformers rotates
halves, so the rows of the query and key weights are reordered, as llama.cpp's own converter does. Its tokenizers are
known by name; "smollm" cuts text into single digits and then GPT-2's pieces, as the embedded model's does.
Other architectures and tokenizers: llama.cpp's convert_hf_to_gguf.py.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.errors import ExportError
from melbo.formats.writers.control_gguf import finish
from melbo.formats.writers.new_file import write_new
from melbo.models.load import LoadedModel
from melbo.runs.optional import needs

_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""llama.cpp's name of each weight in a block, and transformers'."""
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""Tags of a chat template that only transformers understands; they print nothing."""
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def export_llama_gguf(loaded: LoadedModel, path: str | Path) -> Path:
    """Write the model as one .gguf file for llama.cpp.

    Raises:
        ExportError: the model is not a plain Llama, llama.cpp does not know its tokenizer, or `path` exists.
        MissingPackageError: gguf is not installed.
    """
    check_plain_llama(loaded)
    vocabulary = read_vocabulary(loaded)
    with needs("formats"):
        import gguf

    def write(file: Path) -> None:
        writer = gguf.GGUFWriter(str(file), "llama")
        _add_settings(writer, gguf, loaded)
        _add_tokenizer(writer, loaded, vocabulary)
        for name, tensor in llama_tensors(loaded).items():
            writer.add_tensor(name, tensor.numpy())
        finish(writer)

    return write_new(path, write)


def check_plain_llama(loaded: LoadedModel) -> None:
    """Raise ExportError unless llama.cpp's "llama" computes the same as this model."""
    config = loaded.model.config
    rope = getattr(config, "rope_parameters", None) or {}
    found = {
        "architecture": type(loaded.model).__name__,
        "hidden_act": getattr(config, "hidden_act", None),
        "rope_type": rope.get("rope_type"),
        "attention_bias": getattr(config, "attention_bias", None),
        "mlp_bias": getattr(config, "mlp_bias", None),
    }
    needed = ("LlamaForCausalLM", "silu", "default", False, False)
    for name, value in zip(found, needed, strict=True):
        if found[name] != value:
            raise ExportError(
                f"{name} of {loaded.name!r} is {found[name]!r}; only plain Llama models ({name} {value!r}) are written "
                "as GGUF. Use llama.cpp's convert_hf_to_gguf.py."
            )


def read_vocabulary(loaded: LoadedModel) -> dict[str, Any]:
    """The tokenizer as {"tokens", "kinds", "merges", "pre"}, in llama.cpp's terms.

    Raises:
        ExportError: it is not byte-level BPE, or cuts text in a way that llama.cpp has no name for.
    """
    backend = getattr(loaded.tokenizer, "backend_tokenizer", None)
    raw = json.loads(backend.to_str()) if backend is not None else {}
    model, pre = raw.get("model", {}), _pre_tokenizer(raw.get("pre_tokenizer") or {})
    if model.get("type") != "BPE" or raw.get("normalizer") is not None or model.get("byte_fallback") or pre is None:
        raise ExportError(
            f"the tokenizer of {loaded.name!r} is not byte-level BPE with GPT-2's pieces, which is all that is "
            "written as GGUF. Use llama.cpp's convert_hf_to_gguf.py."
        )
    n = int(loaded.model.config.vocab_size)
    known = {i: token for token, i in model["vocab"].items()}
    special = {t["id"]: t["content"] for t in raw["added_tokens"]}
    ids = range(n)
    return {
        "tokens": [special.get(i, known.get(i, f"[PAD{i}]")) for i in ids],
        "kinds": [_CONTROL if i in special else _NORMAL if i in known else _UNUSED for i in ids],
        "merges": [m if isinstance(m, str) else " ".join(m) for m in model["merges"]],
        "pre": pre,
    }


def _pre_tokenizer(raw: dict[str, Any]) -> str | None:
    """llama.cpp's name for the way text is cut before BPE; None if this module knows none."""
    steps = raw.get("pretokenizers", [raw])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or not last.get("use_regex", True):
        return None
    if len(steps) == 1:
        return "gpt-2"
    first = steps[0]
    digits = first.get("type") == "Digits" and first.get("individual_digits")
    digits = digits or (first.get("pattern"), first.get("behavior")) == ({"Regex": r"\d"}, "Isolated")
    return "smollm" if len(steps) == 2 and digits else None


def _add_settings(writer: Any, gguf: Any, loaded: LoadedModel) -> None:
    config = loaded.model.config
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    writer.add_name(Path(loaded.name).name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(loaded.n_layers)
    writer.add_context_length(loaded.context)
    writer.add_embedding_length(loaded.d_model)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, loaded: LoadedModel, vocabulary: dict[str, Any]) -> None:
    tokenizer = loaded.tokenizer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["kinds"])
    writer.add_token_merges(vocabulary["merges"])
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_add_bos_token(False)  # the chat template holds it
    if tokenizer.chat_template:
        writer.add_chat_template(_GENERATION.sub("", tokenizer.chat_template))


def llama_tensors(loaded: LoadedModel) -> dict[str, Tensor]:
    """The weights in float32 on the CPU, under llama.cpp's names."""
    model, config = loaded.model, loaded.model.config
    named = {"token_embd.weight": model.model.embed_tokens.weight, "output_norm.weight": model.model.norm.weight}
    if not config.tie_word_embeddings:
        named["output.weight"] = model.lm_head.weight
    for i, block in enumerate(loaded.blocks):
        for theirs, ours in _BLOCK.items():
            weight: Tensor = block.get_parameter(f"{ours}.weight")
            if theirs == "attn_q":
                weight = in_pairs(weight, config.num_attention_heads)
            elif theirs == "attn_k":
                weight = in_pairs(weight, config.num_key_value_heads)
            named[f"blk.{i}.{theirs}.weight"] = weight
    return {name: w.detach().to("cpu", torch.float32).contiguous() for name, w in named.items()}


def in_pairs(weight: Tensor, heads: int) -> Tensor:
    """A query or key weight [heads * head_dim, d_model] reordered: rotated halves become neighbouring pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
