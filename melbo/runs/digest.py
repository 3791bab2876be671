"""One digest of content, in which order matters: what links, result files and the keys of checkpoints hold."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor


def content_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes, its shape, and its type where that is not float32.

    Returns:
        "<64 hexadecimal digits>-128x256", or "<64 hexadecimal digits>-128x256-bfloat16".
    """
    plain = tensor.detach().cpu().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy().data
    kind = "" if tensor.dtype == torch.float32 else f"-{str(tensor.dtype).removeprefix('torch.')}"
    return f"{hashlib.sha256(data).hexdigest()}-{'x'.join(map(str, tensor.shape))}{kind}"


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON value, 64 hexadecimal digits; the order of lists matters, that of an object's keys does not."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
