"""Which model it is: a fingerprint of a folder's weights, and what a run's key says of a model in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melbo.prompts import Message
from melbo.runs.digest import content_digest, value_digest

if TYPE_CHECKING:
    from melbo.models.load import LoadedModel

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")
ENDS = 16 * 2**20
"""Bytes of a file's start and of its end that a fingerprint reads."""
PARTS, PART = 64, 2**18
"""And how many parts between, of how many bytes."""
WHOLE, SAMPLE = 2**20, 2**16
"""Elements up to which a weight is read whole, and how many are read of a larger one."""


def fingerprint(folder: Path) -> str:
    """ "sha256:..." of a local checkpoint's weights, whatever their format; quick, also where they are large.

    Of each file it takes the name, the size, both ends and parts in equal distances between; files of up to 32 MiB
    whole.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pattern in WEIGHT_FILES for path in folder.glob(pattern)}):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        for part in sampled(path):
            digest.update(part)
    return f"sha256:{digest.hexdigest()[:16]}"


def sampled(path: Path) -> Iterator[bytes]:
    """Both ends of a file, and parts in equal distances between; all of it, parts of it twice, up to 32 MiB."""
    size = path.stat().st_size
    with path.open("rb") as file:
        yield file.read(ENDS)
        if size > 2 * ENDS:
            for part in range(PARTS):
                file.seek(ENDS + part * (size - 2 * ENDS) // PARTS)
                yield file.read(PART)
        file.seek(max(0, size - ENDS))
        yield file.read()


def model_key(loaded: LoadedModel) -> dict[str, Any]:
    """What decides a model's answers, as JSON values: name, revision, type, weights, settings, chat template."""
    model, tokenizer = loaded.model, loaded.tokenizer
    settings = [_plain(model.config), _plain(getattr(model, "generation_config", None)), loaded.block_path]
    template = [type(tokenizer).__name__, len(tokenizer), getattr(tokenizer, "chat_template", None)]
    return {
        "name": loaded.name,
        "revision": loaded.revision,
        "dtype": str(model.dtype),
        "weights": weights_digest(model),
        "settings": value_digest([*settings, *template])[:16],
    }


def weights_digest(model: torch.nn.Module) -> str:
    """16 hexadecimal digits of a model's parameters and buffers, in order; of large ones, a sample in equal distances.

    A model of 8 billion parameters takes a fraction of a second.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return value_digest([[name, list(t.shape), _sampled(t)] for name, t in tensors])[:16]


def run_key(
    loaded: LoadedModel, config: dict[str, Any], prompts: Sequence[Sequence[Message]], **more: Any
) -> dict[str, Any]:
    """What decides a run's result: resolved config, prompts in order, model, and whatever else the run was given.

    Args:
        more: JSON values; of a tensor, its `melbo.runs.digest.content_digest`.
    """
    return {"config": config, "prompts": [list(p) for p in prompts], "model": model_key(loaded), **more}


def _sampled(tensor: Tensor) -> str:
    if tensor.device.type == "meta":  # offloaded: it is in a file, not in memory
        return "meta"
    flat = tensor.detach().reshape(-1)
    return content_digest(flat if len(flat) <= WHOLE else flat[:: len(flat) // SAMPLE])


def _plain(config: Any) -> Any:
    """A config's values, but for those that say where it is from and how attention is computed."""
    values = {} if config is None else config.to_dict()
    return {k: repr(v) for k, v in values.items() if not k.startswith("_") and k != "transformers_version"}
