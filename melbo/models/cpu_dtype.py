"""In which precision a model computes on a CPU."""

from typing import Any

import torch

LEAST_PARAMETERS = 50_000_000
"""Smaller models are no faster in bfloat16: the embedded one (6 million) is slower."""
NATIVE = ("avx512_bf16", "amx_bf16")
"""Features of processors that multiply bfloat16 matrices; others emulate it, many times slower."""


def cpu_dtype(config: Any) -> torch.dtype:
    """bfloat16 where the checkpoint is stored in it, the model is large and the processor computes in it, else float32.

    On SmolLM2-135M discovery was 2.2 times faster so, and an answered pair 2.4 times, at 103% of the objective (2 cores
    with AVX-512 bfloat16, one seed).

    Args:
        config: of the checkpoint, as transformers reads it.
    """
    stored = getattr(config, "dtype", None) == torch.bfloat16
    return torch.bfloat16 if stored and parameters(config) >= LEAST_PARAMETERS and has_bfloat16() else torch.float32


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices itself."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name, False) for name in NATIVE)


def parameters(config: Any) -> int:
    """About how many parameters a decoder of this config has: embedding, and 12 squares of the width a block."""
    text = config.get_text_config()
    sizes = [int(getattr(text, name, 0) or 0) for name in ("hidden_size", "num_hidden_layers", "vocab_size")]
    width, blocks, vocabulary = sizes
    return vocabulary * width + 12 * blocks * width**2
