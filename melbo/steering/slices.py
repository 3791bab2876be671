"""Run only the blocks between the source and the target layer, exactly as the whole model would.

One pass of the whole model per prompt captures the residual stream at the source layer and the arguments (masks,
rotary embeddings) that each later block is called with; a second one, with the prompt twice, tells which of these have
a copy per row. After that, a step replays blocks source+1..target alone, for any number of disturbed copies of the
prompt in one batch.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from melbo.models.load import LoadedModel
from melbo.steering.hooks import (
    capture,
    check_residual,
    first_output,
    last_tokens_only,
    record_inputs,
    run_until_stop,
)

TOKEN_WISE = ("q_proj", "o_proj", "out_proj", "mlp")
"""Names of modules that treat each token by itself in most architectures."""
TRIED = 2
"""Tokens that they are tried with: with one, a wrong shape could pass by broadcasting."""
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a block without the hidden states; the tensors that have a copy per row are `PerRow`."""


@dataclass(frozen=True)
class PerRow:
    """An argument that grows with the number of rows, like a mask [1, 1, T, T] or Bloom's ALiBi [heads, 1, T]."""

    one: Tensor
    """For one row."""
    axis: int
    """The axis that grows."""

    def for_rows(self, n: int) -> Tensor:
        """For n copies of the row; a view where that axis has length 1."""
        if self.one.shape[self.axis] == 1:
            return self.one.expand(*self.one.shape[: self.axis], n, *self.one.shape[self.axis + 1 :])
        return torch.cat([self.one] * n, dim=self.axis)


@dataclass(frozen=True)
class Slice:
    """Blocks source+1..target of a model on one prompt."""

    loaded: LoadedModel
    source_layer: int
    target_layer: int
    source: Tensor
    """Residual stream at the source layer [1, T, d_model], unsteered."""
    target: Tensor
    """Residual stream at the target layer [1, T, d_model], unsteered."""
    calls: tuple[Call, ...]
    """Arguments of each block in the slice, as `_make_calls` marks them."""
    token_wise: tuple[nn.Module, ...] = ()
    """Parts of the last block that `change` runs only where it reads the output."""

    def run(self, vectors: Tensor) -> Tensor:
        """Target activations [n, T, d_model] with each vector of `vectors` [n, d_model] added at every position.

        Differentiable in `vectors`. Equal to a forward pass of the whole model under `melbo.steering.hooks.steer`.
        """
        # vectors in column order (an SVD's) would make a sum that Mixtral cannot `view`
        hidden = self.source + vectors.to(self.source.dtype).contiguous()[:, None, :]  # [n, T, d_model]
        for layer, call in enumerate(self.calls, start=self.source_layer + 1):
            args, kwargs = _for_rows(call, len(hidden))
            hidden = first_output(self.loaded.blocks[layer](hidden, *args, **kwargs))
        return hidden

    @cached_property
    def row_bytes(self) -> int:
        """Memory that one vector's forward pass keeps for its gradient, in bytes; measured with one vector."""
        weights = {p.untyped_storage().data_ptr() for b in self.loaded.blocks for p in b.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # else the graph keeps the hooks alive, and with them all tensors

        vector = self.source.new_zeros(1, self.source.shape[-1]).requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            self.run(vector)
        return sum(kept.values())

    def change(self, vectors: Tensor, tokens: int, skip: int = 0) -> Tensor:
        """Change of the target activations at the last `tokens` positions but `skip`, [n, tokens, d_model].

        At least float32.
        """
        dtype = torch.promote_types(self.target.dtype, torch.float32)
        with last_tokens_only(self.token_wise, tokens + skip):
            reached = self.run(vectors)
        end = reached.shape[1] - skip
        return reached[:, end - tokens : end].to(dtype) - self.target[:, end - tokens : end].to(dtype)


def make_slice(loaded: LoadedModel, input_ids: Tensor, source_layer: int, target_layer: int) -> Slice:
    """Capture one prompt's slice. input_ids [T], without padding; source_layer -1 is the first block's input.

    Raises:
        ModelError: the blocks' outputs are not [rows, T, d_model].
    """
    layers = list(range(source_layer + 1, target_layer + 1))
    with (
        torch.no_grad(),
        record_inputs(loaded, layers) as inputs,
        capture(loaded, [target_layer]) as found,
    ):
        run_until_stop(loaded, input_ids[None])
    args, kwargs = inputs[source_layer + 1]  # the hidden states come first, or by name
    source, target = args[0] if args else kwargs["hidden_states"], found[target_layer]
    for hidden in (source, target):
        check_residual(loaded, hidden, (1, len(input_ids)))
    piece = Slice(loaded, source_layer, target_layer, source, target, _make_calls(loaded, input_ids, inputs))
    return replace(piece, token_wise=_token_wise(piece))


def _token_wise(piece: Slice) -> tuple[nn.Module, ...]:
    """Parts of the last block named in TOKEN_WISE; none where running them on the last tokens alone changes these.

    Tried with one disturbed row: an architecture may call a part in another way, or mix tokens in it.
    """
    block = piece.loaded.blocks[piece.target_layer]
    parts = tuple(m for name, m in block.named_modules() if name.rpartition(".")[2] in TOKEN_WISE)
    noise = torch.randn(1, piece.source.shape[-1], generator=torch.Generator().manual_seed(0)).to(piece.source)
    with torch.no_grad():
        try:
            whole = piece.run(noise)[:, -TRIED:]
            with last_tokens_only(parts, TRIED):
                short = piece.run(noise)[:, -TRIED:]
        except (RuntimeError, TypeError, AttributeError):
            return ()
    error = (short - whole).norm() / (whole - piece.target[:, -TRIED:]).norm()
    return parts if error < 100 * torch.finfo(whole.dtype).eps else ()


def _make_calls(loaded: LoadedModel, input_ids: Tensor, inputs: dict[int, Call]) -> tuple[Call, ...]:
    """Arguments to replay blocks with, in order, for any number of rows.

    Args:
        input_ids: the prompt [T].
        inputs: what `record_inputs` recorded of these blocks for the prompt in one row.
    """
    layers = sorted(inputs)
    with torch.no_grad(), record_inputs(loaded, layers) as double, capture(loaded, layers[-1:]):
        run_until_stop(loaded, input_ids[None].expand(2, -1))
    return tuple(_mark(_without_hidden(inputs[layer]), _without_hidden(double[layer])) for layer in layers)


def _without_hidden(call: Call) -> Call:
    args, kwargs = call
    return args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}


def _mark(one: Any, two: Any) -> Any:
    """`one`, with each tensor that is larger in `two`, the same arguments for two rows, as `PerRow`."""
    if isinstance(one, Tensor):
        grown = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
        return PerRow(one, grown[0]) if grown else one
    if type(one) in (tuple, list):
        return type(one)(_mark(a, b) for a, b in zip(one, two, strict=True))
    if type(one) is dict:
        return {name: _mark(value, two[name]) for name, value in one.items()}
    return one


def _for_rows(value: Any, n: int) -> Any:
    """`value` with each `PerRow` in it for n rows."""
    if isinstance(value, PerRow):
        return value.for_rows(n)
    if type(value) in (tuple, list):
        return type(value)(_for_rows(item, n) for item in value)
    if type(value) is dict:
        return {name: _for_rows(item, n) for name, item in value.items()}
    return value


def mean_residual_norm(slices: list[Slice]) -> float:
    """Mean L2 norm of the residual stream at the source layer over all prompt tokens but each prompt's first.

    The first token is an attention sink in most models, with a norm many times the others'.
    """
    norms = [s.source[0].float().norm(dim=-1)[min(1, s.source.shape[1] - 1) :] for s in slices]
    return float(torch.cat(norms).mean())
