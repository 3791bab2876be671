"""Shared by tests: BANK, random_sae, sparsify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from melbo.inspect.sae.dictionary import Sae, SaeSpec

D, F = 64, 96
BANK = Path(__file__).parents[2] / "vectors" / "organism-bomb"


def random_sae(activation: Any = "topk", layer: int = 1, name: str = "tiny", d_in: int = D, d_sae: int = F) -> Sae:
    g = torch.Generator().manual_seed(5)
    shapes = ((d_sae, d_in), (d_sae,), (d_sae, d_in), (d_in,))
    encoder, bias, decoder, offset = (torch.randn(s, generator=g) for s in shapes)
    spec = SaeSpec(d_in, d_sae, activation, 7 if activation == "topk" else 0, layer, name)
    threshold = torch.full((d_sae,), 2.0) if activation == "jumprelu" else None
    return Sae(spec, encoder, bias, decoder, offset, threshold=threshold)


def sparsify(root: Path, **config: Any) -> Path:
    folder = root / "layers.3"
    folder.mkdir(parents=True)
    (root / "config.json").write_text('{"model": "owner/M"}')
    (folder / "cfg.json").write_text(json.dumps({"d_in": 4, "num_latents": 6, "k": 2, **config}))
    tensors = {"encoder.weight": torch.randn(6, 4), "encoder.bias": torch.randn(6)}
    save_file({**tensors, "W_dec": torch.randn(6, 4), "b_dec": torch.ones(4)}, str(folder / "sae.safetensors"))
    return root
