"""Where a model's attention sink forms: the block at which one token's norm explodes.

Many models give the first token (or a delimiter) an enormous norm in one dimension, which later blocks attend to when
they attend to nothing (Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks"; Sun et al. 2024,
"Massive Activations in Large Language Models"). A vector that is added at every position before that block can make
sinks of other tokens, or unmake the first: the objective then measures how badly the model breaks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from melbo.config import DiscoveryConfig
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.steering.hooks import capture, run_until_stop

SINK = 20.0
"""Times a token's norm exceeds the median token's, where it is a sink."""
GROWTH = 3.0
"""Least factor by which that ratio grows in the block that makes the sink."""
LATEST = 0.6
"""Share of the depth behind which no source is placed."""


@dataclass(frozen=True)
class Sink:
    """What the norms say."""

    block: int | None
    """The last block that makes a sink; None: there is none."""
    ratios: tuple[float, ...]
    """By block: the largest token's norm over the median token's, of the prompt where it is largest."""


def find_sink(loaded: LoadedModel, prompts: Sequence[Sequence[Message]]) -> Sink:
    """Look at the residual stream after every block."""
    ratios = [0.0] * loaded.n_layers
    for prompt in prompts:
        ids = encode(loaded.tokenizer, prompt, loaded.context)[None].to(loaded.device)
        with torch.inference_mode(), capture(loaded, list(range(loaded.n_layers))) as states:
            run_until_stop(loaded, ids)
        for block in range(loaded.n_layers):
            norms = states[block][0].float().norm(dim=-1)
            ratios[block] = max(ratios[block], float(norms.max() / norms.median().clamp_min(1e-12)))
    found = None
    for block in range(1, loaded.n_layers):
        if ratios[block] >= SINK and ratios[block] >= GROWTH * ratios[block - 1]:
            found = block
    return Sink(found, tuple(round(r, 3) for r in ratios))


def place_layers(
    loaded: LoadedModel, config: DiscoveryConfig, prompts: Sequence[Sequence[Message]]
) -> tuple[DiscoveryConfig, dict[str, Any]]:
    """The config with its layers resolved, the source behind the sink where it is not given, and what was seen.

    A source that the config gives stays, and so does the default where a sink forms too late for a source behind it.

    Returns:
        The resolved config, and the bank's details: "attention_sink" where there is one.
    """
    plain = config.resolve(loaded.n_layers, loaded.d_model)
    sink = find_sink(loaded, prompts)
    if sink.block is None or plain.source_layer is None:
        return plain, {}
    behind, last = sink.block + 1, math.floor(LATEST * loaded.n_layers)
    moves = config.source_layer is None and plain.source_layer < behind <= last and behind < (plain.target_layer or 0)
    placed = replace(plain, source_layer=behind) if moves else plain
    seen = {"block": sink.block, "ratios": list(sink.ratios), "source_moved": moves}
    return placed, {"attention_sink": seen}


def told(details: Mapping[str, Any]) -> str | None:
    """One line of what was seen of a sink, for a terminal; None: there is none."""
    seen = details.get("attention_sink")
    if not seen:
        return None
    did = "the source layer was placed behind it" if seen["source_moved"] else "the source layer stays as it is"
    return f"an attention sink forms at block {seen['block']}: {did}"
