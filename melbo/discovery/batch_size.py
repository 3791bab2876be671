"""How many rows one pass may take: what the free memory of a device holds, and no more than makes it faster."""

from __future__ import annotations

import os

from melbo.runs.free_memory import free_bytes
from melbo.steering.slices import Slice

CHUNK_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Most tokens of one forward pass: more do not make a step faster."""
MEMORY_SHARE = 0.5
"""Share of the free memory that a chunk's activations may take."""


def rows_per_chunk(piece: Slice, most: int | None = None) -> int:
    """Rows of one forward and backward pass: what fits the free memory (a power of two), at most CHUNK_TOKENS."""
    device = piece.source.device
    rows = CHUNK_TOKENS.get(device.type, CHUNK_TOKENS["cpu"]) // piece.source.shape[1]
    if piece.row_bytes:
        sharing = 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        fit = int(free_bytes(device) / sharing * MEMORY_SHARE / piece.row_bytes)
        rows = min(rows, 1 << max(0, fit.bit_length() - 1))
    return max(1, min(rows, most or rows))
