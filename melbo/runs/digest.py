"""A bank's digest: says which vectors a link or a result file is about."""

from __future__ import annotations

import hashlib

from torch import Tensor


def bank_digest(vectors: Tensor) -> str:
    """SHA-256 of the bytes of vectors [n, d_model] float32, and their shape: "<64 hexadecimal digits>-128x256"."""
    data = vectors.detach().cpu().contiguous().numpy().tobytes()
    return f"{hashlib.sha256(data).hexdigest()}-{'x'.join(map(str, vectors.shape))}"
