"""Every hook there is: steer (one vector per row), edit all outputs, ablate, capture, and record a block's inputs.

All hooks are context managers, add out of place, and are removed when the block ends, also after an exception. The
model's weights are never touched.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from melbo.errors import ConfigError, ModelError
from melbo.models.load import LoadedModel

Positions = Literal["all", "prompt", "generated"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated")


def check_layer(loaded: LoadedModel, layer: int) -> None:
    """Raise ConfigError unless `layer` is a block of the model."""
    if not 0 <= layer < loaded.n_layers:
        raise ConfigError(f"layer {layer} is not in this model; it has blocks 0 to {loaded.n_layers - 1}.")


def first_output(output: Any) -> Tensor:
    """The hidden states in what a block returns: they come alone, or first of a tuple or list."""
    hidden: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return hidden


def with_first(output: Any, hidden: Tensor) -> Any:
    """A block's output with other hidden states."""
    if isinstance(output, list):
        return [hidden, *output[1:]]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def check_residual(loaded: LoadedModel, hidden: Tensor, rows_and_tokens: tuple[int, int] | None = None) -> None:
    """Raise ModelError unless a block's hidden states are [rows, T, d_model]."""
    rows, tokens = rows_and_tokens or hidden.shape[:2]
    if hidden.shape != (rows, tokens, loaded.d_model):
        raise ModelError(
            f"the blocks of {type(loaded.model).__name__} return hidden states of shape {list(hidden.shape)}, not "
            f"[{rows} rows, {tokens} tokens, d_model {loaded.d_model}]; MELBO cannot steer this architecture."
        )


@contextmanager
def steer(
    loaded: LoadedModel, layer: int, vectors: Tensor, positions: Positions = "all", prompt_width: int | None = None
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
        ModelError: while the model runs, where its hidden states are not [rows, T, d_model].
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
        hidden = first_output(output)  # [rows, T, d_model]
        if vectors.shape[0] not in (1, hidden.shape[0]):
            raise ConfigError(f"{vectors.shape[0]} vectors were given for {hidden.shape[0]} sequences.")
        if rows_zero:
            return output
        check_residual(loaded, hidden)
        addend = vectors.to(hidden.device, hidden.dtype)[:, None, :]
        if positions != "all":
            index = _first_position(args, kwargs, layer, hidden.shape[1]) + torch.arange(
                hidden.shape[1], device=hidden.device
            )
            chosen = index < width if positions == "prompt" else index >= width
            addend = addend * chosen[None, :, None].to(hidden.dtype)
        # A zero row stays bit-identical: x + 0 == x for every finite x but -0.0, which compares equal.
        return with_first(output, hidden + addend)

    with _removed_after([loaded.blocks[layer].register_forward_hook(_only_here(add), with_kwargs=True)]):
        yield


@contextmanager
def _removed_after(handles: list[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
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


@contextmanager
def edit_outputs(blocks: Iterable[nn.Module], edit: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Replace the output [rows, T, d_model] of every block by edit(block number, output)."""

    def hook(index: int) -> Callable[..., Any]:
        def change(_module: nn.Module, _args: Any, output: Any) -> Any:
            return with_first(output, edit(index, first_output(output)))

        return change

    handles = [block.register_forward_hook(_only_here(hook(i))) for i, block in enumerate(blocks)]
    with _removed_after(handles):
        yield


@contextmanager
def ablate(loaded: LoadedModel, vector: Tensor) -> Iterator[None]:
    """Remove the direction of `vector` from every block's output: x - (x . u) u with u = vector / |vector|.

    Directional ablation (https://arxiv.org/abs/2406.11717) at the blocks' outputs; weights stay as they are. The
    removal itself is computed in at least float32.

    Args:
        vector: [d_model]; its length plays no part.

    Raises:
        ConfigError: a wrong shape, or a vector that is zero or not finite.
    """
    norm = vector.float().norm()
    if vector.shape != (loaded.d_model,) or not 0 < float(norm) < float("inf"):
        raise ConfigError(
            f"the vector to ablate has shape {list(vector.shape)} and norm {float(norm):.3g}; this model needs "
            f"[{loaded.d_model}] and a finite norm above 0."
        )
    unit = vector.float() / norm

    def remove(_block: int, hidden: Tensor) -> Tensor:
        exact = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        u = unit.to(exact.device, exact.dtype)
        rest: Tensor = exact - (exact @ u)[..., None] * u
        return rest.to(hidden.dtype)

    with edit_outputs(loaded.blocks, remove):
        yield


@contextmanager
def last_tokens_only(modules: Iterable[nn.Module], tokens: int) -> Iterator[None]:
    """Run modules on the last `tokens` positions of their inputs [rows, T, ...]; zeros stand in for other outputs.

    For modules that treat each token by itself, where only these positions are read afterwards.
    """
    width: list[int] = []

    def shorten(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        width.append(args[0].shape[1])
        return tuple(a[:, -tokens:].contiguous() if isinstance(a, Tensor) else a for a in args)

    def lengthen(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return nn.functional.pad(output, (0, 0, width.pop() - output.shape[1], 0))

    handles: list[RemovableHandle] = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(_only_here(shorten)))
        handles.append(module.register_forward_hook(_only_here(lengthen)))
    with _removed_after(handles):
        yield


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
            found[layer] = first_output(output)
            if stop and layer == max(layers):
                raise _StopForward

        return hook

    handles = [loaded.blocks[layer].register_forward_hook(_only_here(keep(layer))) for layer in layers]
    with _removed_after(handles):
        yield found


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
    with _removed_after(handles):
        yield found


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


@contextmanager
def adapt(modules: Iterable[nn.Module], a: Tensor, b: Tensor) -> Iterator[None]:
    """Add (a . x) b to the output of each linear module, x its input, with factors of its own for each sequence.

    Args:
        modules: linear layers, in the order of the factors' second axis.
        a: [rows, layers, in_features]; one row serves all sequences.
        b: [rows, layers, out_features]; scale already multiplied in.

    Raises:
        ConfigError: while the model runs, where the number of rows is neither 1 nor that of the sequences.
    """

    def hook(layer: int) -> Callable[..., Any]:
        def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            x = args[0]  # [rows, T, in_features], or [rows * T, in_features] in some MLPs
            if a.shape[0] != 1 and (x.shape[0] % a.shape[0] if x.ndim == 2 else x.shape[0] != a.shape[0]):
                raise ConfigError(f"{a.shape[0]} adapters were given for {x.shape[0]} sequences.")
            exact = torch.promote_types(x.dtype, torch.float32)  # as PEFT computes it
            inputs = x.reshape(a.shape[0], -1, x.shape[-1]).to(exact)
            gain = torch.einsum("rti,ri->rt", inputs, a[:, layer].to(x.device, exact))
            added = gain[:, :, None] * b[:, layer, None].to(x.device, exact)  # [rows, T, out_features]
            return output + added.reshape(output.shape).to(output.dtype)

        return add

    handles = [module.register_forward_hook(_only_here(hook(i))) for i, module in enumerate(modules)]
    with _removed_after(handles):
        yield


@contextmanager
def record_linear_inputs(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that a forward pass fills with the input of each module, in the order in which they run."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0])

    handles = [module.register_forward_pre_hook(_only_here(keep)) for module in modules]
    with _removed_after(handles):
        yield found
