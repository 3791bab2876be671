"""Every hook there is: steer (one vector per row), capture, and record a block's inputs.

All hooks are context managers, add out of place, and are removed when the block ends, also after an exception. The
model's weights are never touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from melbo.errors import ConfigError
from melbo.models import LoadedModel

Positions = Literal["all", "prompt", "generated"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated")


def check_layer(loaded: LoadedModel, layer: int) -> None:
    """Raise ConfigError unless `layer` is a block of the model."""
    if not 0 <= layer < loaded.n_layers:
        raise ConfigError(f"layer {layer} is not in this model; it has blocks 0 to {loaded.n_layers - 1}.")


@contextmanager
def steer(
    loaded: LoadedModel,
    layer: int,
    vectors: Tensor,
    positions: Positions = "all",
    prompt_width: int | None = None,
) -> Iterator[None]:
    """Add row i of `vectors` to sequence i at the output of block `layer`, while the block runs.

    Works in batches, under left padding, and under a KV cache, where a forward pass sees only the newest tokens.
    A row of zeros leaves its sequence unchanged to the last bit.

    Args:
        layer: block number, 0-based.
        vectors: [rows, d_model] (one per sequence) or [d_model] (the same for all); scale already multiplied in.
        positions: "all" tokens, only the "prompt", or only the "generated" tokens.
        prompt_width: padded length of the prompt; needed for "prompt" and "generated".

    Raises:
        ConfigError: a wrong layer, shape or position name, or vectors that are not finite.
    """
    check_layer(loaded, layer)
    if positions not in POSITIONS:
        raise ConfigError(f"positions is {positions!r}; use one of {', '.join(POSITIONS)}.")
    if positions != "all" and prompt_width is None:
        raise ConfigError(f"positions={positions!r} needs prompt_width, the padded length of the prompt.")
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or vectors.shape[1] != loaded.d_model:
        raise ConfigError(
            f"vectors have shape {tuple(vectors.shape)}; "
            f"this model needs [rows, {loaded.d_model}] or [{loaded.d_model}]."
        )
    if not bool(torch.isfinite(vectors).all()):
        raise ConfigError("the steering vectors hold NaN or infinite values; train or load them again.")
    width = prompt_width or 0
    rows_zero = bool((vectors == 0).all())

    def add(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output  # [rows, T, d_model]
        if vectors.shape[0] not in (1, hidden.shape[0]):
            raise ConfigError(f"{vectors.shape[0]} vectors were given for {hidden.shape[0]} sequences.")
        if rows_zero:
            return output
        addend = vectors.to(hidden.device, hidden.dtype)[:, None, :]
        if positions != "all":
            index = _first_position(args, kwargs, layer, hidden.shape[1]) + torch.arange(
                hidden.shape[1], device=hidden.device
            )
            chosen = index < width if positions == "prompt" else index >= width
            addend = addend * chosen[None, :, None].to(hidden.dtype)
        # A zero row stays bit-identical: x + 0 == x for every finite x but -0.0, which compares equal.
        steered = hidden + addend
        return (steered, *output[1:]) if isinstance(output, tuple) else steered

    handle = loaded.blocks[layer].register_forward_hook(_only_here(add), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _only_here(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, without effect in other threads: concurrent users of a model never see each other's hooks."""
    owner = threading.get_ident()

    def guarded(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == owner else None

    return guarded


def _first_position(args: tuple[Any, ...], kwargs: dict[str, Any], layer: int, width: int) -> int:
    """Index of the first token of this forward pass within the padded sequence; 0 without a cache."""
    for value in (*kwargs.values(), *args):
        if isinstance(value, Cache):
            return int(value.get_seq_length(layer)) - width  # the block has already added its tokens
    return 0


class _StopForward(Exception):
    """Ends a forward pass early, once everything asked for is captured."""


@contextmanager
def capture(loaded: LoadedModel, layers: list[int], stop: bool = True) -> Iterator[dict[int, Tensor]]:
    """Yield a dict that a forward pass fills with the output [rows, T, d_model] of each block in `layers`.

    With `stop`, the pass ends after the last of them; `run_until_stop` swallows that.
    """
    for layer in layers:
        check_layer(loaded, layer)
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            found[layer] = output[0] if isinstance(output, tuple) else output
            if stop and layer == max(layers):
                raise _StopForward

        return hook

    handles = [loaded.blocks[layer].register_forward_hook(_only_here(keep(layer))) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_inputs(
    loaded: LoadedModel, layers: list[int]
) -> Iterator[dict[int, tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Yield a dict that a forward pass fills with the (args, kwargs) each block in `layers` is called with."""
    found: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[layer] = (args, dict(kwargs))

        return hook

    handles = [loaded.blocks[i].register_forward_pre_hook(_only_here(keep(i)), with_kwargs=True) for i in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def run_until_stop(loaded: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None = None) -> None:
    """One forward pass without a cache; ends quietly where a `capture` stops it."""
    try:
        loaded.model(
            input_ids=input_ids.to(loaded.device),
            attention_mask=None if attention_mask is None else attention_mask.to(loaded.device),
            use_cache=False,
        )
    except _StopForward:
        return
