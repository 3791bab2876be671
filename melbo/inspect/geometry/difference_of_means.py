"""Difference-of-means vectors: the mean activation on some prompts less that on others, a supervised direction to hold
the unsupervised ones against. Contrasts may come from a JSON file.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.errors import CorpusError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, chat, encode, left_pad
from melbo.runs.files import parse_json
from melbo.steering.hooks import capture, run_until_stop

Prompt = tuple[Message, ...]


@dataclass(frozen=True)
class Contrast:
    """Two sets of prompts that differ in one thing."""

    name: str
    positive: tuple[Prompt, ...]
    negative: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        if not self.positive or not self.negative:
            raise CorpusError(f"the contrast {self.name!r} needs at least one prompt on each side.")


def mean_activation(loaded: LoadedModel, prompts: Sequence[Sequence[Message]], layer: int, rows: int = 32) -> Tensor:
    """Mean residual stream [d_model], float32, at each prompt's last token, at the output of block `layer`."""
    total = torch.zeros(loaded.d_model)
    for begin in range(0, len(prompts), rows):
        part = [encode(loaded.tokenizer, p, loaded.context) for p in prompts[begin : begin + rows]]
        ids, mask = left_pad(part, loaded.tokenizer.pad_token_id)
        with torch.inference_mode(), capture(loaded, [layer]) as found:
            run_until_stop(loaded, ids, mask)
        total += found[layer][:, -1].float().sum(dim=0).cpu()
    return total / len(prompts)


def difference_of_means(loaded: LoadedModel, contrast: Contrast, layer: int) -> Tensor:
    """Mean activation on the positive prompts less that on the negative ones, [d_model] float32.

    Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", 2023, https://arxiv.org/abs/2312.06681
    """
    return mean_activation(loaded, contrast.positive, layer) - mean_activation(loaded, contrast.negative, layer)


def load_contrasts(path: Path) -> tuple[Contrast, ...]:
    """Contrasts from JSON: {"name": {"positive": [prompt, ...], "negative": [...]}}; a prompt is a text or messages.

    Raises:
        CorpusError: no such file, or it holds something else.
    """
    if not os.path.isfile(path):
        raise CorpusError(f"there is no file {path}; give contrasts as JSON.")
    try:
        raw = parse_json(path.read_bytes())
        found = tuple(
            Contrast(str(name), *(_prompts(sides[side]) for side in ("positive", "negative")))
            for name, sides in raw.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{path} holds no contrasts ({repr(error)[:200]}); "
            'write {"name": {"positive": ["..."], "negative": ["..."]}}.'
        ) from error
    if not found:
        raise CorpusError(f"{path} holds no contrast; name at least one.")
    return found


def _prompts(value: Any) -> tuple[Prompt, ...]:
    if not isinstance(value, list):  # a single text would be read letter by letter
        raise TypeError("prompts must be a list")
    return tuple(_prompt(p) for p in value)


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return tuple(chat(value))
    return tuple({"role": m["role"] + "", "content": m["content"] + ""} for m in value)
