"""What every method evaluates: how the target activations change, and derivatives of that, for many vectors at once.

A `Problem` is a set of slices (one per prompt) and the objective's settings. Rows are evaluated in chunks, as
many at once as memory holds, and shared out between the processes of `accelerate launch`; neither changes a result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.config import DiscoveryConfig
from melbo.discovery.derivatives import derivative_along, is_out_of_memory, twice_differentiable
from melbo.discovery.objective import displacement, effect_overlap
from melbo.errors import ConfigError, MemoryLimitError, TrainingError
from melbo.models.load import LoadedModel
from melbo.runs.free_memory import free_bytes
from melbo.runs.processes import my_rows, sum_over_processes
from melbo.steering.slices import Slice

CHUNK_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Most tokens of one forward pass: more do not make a step faster."""
MEMORY_SHARE = 0.5
"""Share of the free memory that a chunk's activations may take."""


@dataclass(frozen=True)
class Evaluation:
    """The objective at a set of vectors, summed over prompts."""

    objective: Tensor
    """[n] displacement, or what replaces it."""
    gradient: Tensor
    """[n, d_model]; zeros where it was not asked for."""
    output: Tensor
    """[n, d_model] change of the target activations, mean over the target tokens and the prompts."""
    effects: Tensor | None = None
    """[prompts, n, d_model] the same for each prompt; kept where config.effect_penalty needs it."""

    def rows(self, index: Tensor) -> Evaluation:
        """The rows `index`, in that order."""
        effects = None if self.effects is None else self.effects[:, index]
        return Evaluation(self.objective[index], self.gradient[index], self.output[index], effects)


class Problem:
    """Slices, objective settings and chunk sizes.

    Raises:
        ConfigError: the shortest prompt has no such target tokens.
    """

    def __init__(self, slices: list[Slice], config: DiscoveryConfig) -> None:
        shortest = min(s.source.shape[1] for s in slices)
        if config.target_tokens + config.skip_tokens > shortest:
            skipped = f" and skip_tokens {config.skip_tokens}" if config.skip_tokens else ""
            raise ConfigError(
                f"target_tokens is {config.target_tokens}{skipped}, but the shortest prompt has {shortest} tokens; "
                "lower it."
            )
        self.slices, self.config = slices, config
        self._most_rows: int | None = None  # set when a chunk ran out of memory

    def evaluate(self, vectors: Tensor, gradient: bool = True, others: Tensor | None = None) -> Evaluation:
        """Displacement of each vector [n, d_model], with its gradient.

        With `others` [prompts, n, d_model] (effects they had before) and config.effect_penalty w > 0, the gradient is
        that of displacement / (1 + w * sum over other vectors of the squared cosine of their effects), for each prompt.
        """
        weight = self.config.effect_penalty

        def value(change: Tensor, rows: slice, prompt: int) -> Tensor:
            result = displacement(change, self.config.power, self.config.root)
            if weight and others is not None and gradient:
                result = result / (1 + weight * effect_overlap(change.mean(dim=1), others[prompt], rows.start))
            return result

        return self.evaluate_with(value, vectors, gradient)

    def evaluate_with(
        self, value: Callable[[Tensor, slice, int], Tensor], vectors: Tensor, gradient: bool = True
    ) -> Evaluation:
        """As `evaluate`, for any value(change [rows, tokens, d_model], rows, prompt) -> [rows], summed over prompts."""
        objective = vectors.new_zeros(len(vectors))
        grad, output = torch.zeros_like(vectors), torch.zeros_like(vectors)
        effects = vectors.new_zeros(len(self.slices), *vectors.shape) if self.config.effect_penalty else None

        def work(prompt: int, rows: slice, theta: Tensor) -> None:
            theta.requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                change = self._change(self.slices[prompt], theta)
                result = value(change, rows, prompt)
            pulled = torch.autograd.grad(result.sum(), theta)[0].to(grad) if gradient else None
            mean = change.detach().mean(dim=1).to(output)
            if pulled is not None:
                grad[rows] += pulled
            objective[rows] += result.detach().to(objective)
            output[rows] += mean / len(self.slices)
            if effects is not None:
                effects[prompt, rows] += mean

        self._each_chunk(vectors, work)
        sum_over_processes(objective, grad, output, *([] if effects is None else [effects]))
        return Evaluation(objective, grad, output, effects)

    def change(self, vectors: Tensor) -> Tensor:
        """Outputs D(vectors) [n, d_model]: change of the target activations, mean over target tokens and prompts."""
        return self.evaluate(vectors, gradient=False).output

    def pull_back(self, vectors: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs D(vectors) [n, d_model] and the gradient of <directions, D(vectors)> [n, d_model]."""

        def value(change: Tensor, rows: slice, _prompt: int) -> Tensor:
            mean = change.mean(dim=1) / len(self.slices)
            return (mean * directions[rows].to(mean)).sum(dim=-1)

        found = self.evaluate_with(value, vectors)
        return found.output, found.gradient

    def gauss_newton(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """J'J v [n, d_model] and ||J v|| [n]; J is the derivative at zero of all target tokens of all prompts."""
        product, square = torch.zeros_like(vectors), vectors.new_zeros(len(vectors))

        def work(prompt: int, rows: slice, theta: Tensor) -> None:
            piece = self.slices[prompt]
            zero = torch.zeros_like(theta)
            with twice_differentiable(), torch.enable_grad():
                pushed = self._push(piece, zero, theta).detach()
                change = self._change(piece, zero.requires_grad_())
                (g,) = torch.autograd.grad(change, zero, pushed)
            length = pushed.square().sum(dim=(1, 2)).to(square)
            product[rows] += g.to(product)
            square[rows] += length

        self._each_chunk(vectors, work)
        sum_over_processes(product, square)
        return product, square.sqrt()

    def push_forward(self, vectors: Tensor, tangents: Tensor) -> Tensor:
        """Derivative of the outputs D at `vectors` along `tangents`, [n, d_model]."""
        result = torch.zeros_like(vectors)

        def work(prompt: int, rows: slice, theta: Tensor) -> None:
            piece = self.slices[prompt]
            with twice_differentiable():
                pushed = self._push(piece, theta, tangents[rows].to(theta)).detach()
            result[rows] += pushed.mean(dim=1).to(result) / len(self.slices)

        self._each_chunk(vectors, work)
        sum_over_processes(result)
        return result

    def curvature(self, vectors: Tensor) -> Tensor:
        """Second derivative of the outputs D at zero along each vector, D''(0)[v, v], [n, d_model]."""
        result = torch.zeros_like(vectors)

        def work(prompt: int, rows: slice, theta: Tensor) -> None:
            piece = self.slices[prompt]
            with twice_differentiable():
                zero = torch.zeros_like(theta)
                bend = derivative_along(lambda point: self._push(piece, point, theta), zero, theta).detach()
            result[rows] += bend.mean(dim=1).to(result) / len(self.slices)

        self._each_chunk(vectors, work)
        sum_over_processes(result)
        return result

    def hessian_product(self, vectors: Tensor, directions: Tensor) -> Tensor:
        """The Hessian at zero of <directions, D>, times v, [n, d_model]."""
        result = torch.zeros_like(vectors)

        def work(prompt: int, rows: slice, theta: Tensor) -> None:
            piece = self.slices[prompt]
            zero = torch.zeros_like(theta).requires_grad_()
            with twice_differentiable(), torch.enable_grad():
                change = self._change(piece, zero).mean(dim=1) / len(self.slices)
                (g,) = torch.autograd.grad((change * directions[rows].to(change)).sum(), zero, create_graph=True)
                (h,) = torch.autograd.grad(g, zero, theta)
            result[rows] += h.to(result)

        self._each_chunk(vectors, work)
        sum_over_processes(result)
        return result

    def _push(self, piece: Slice, point: Tensor, tangent: Tensor) -> Tensor:
        """Derivative of a slice's change along `tangent`, [rows, tokens, d_model]."""
        return derivative_along(lambda theta: self._change(piece, theta), point, tangent)

    def _change(self, piece: Slice, vectors: Tensor) -> Tensor:
        """Change of a slice's target tokens, [rows, tokens, d_model]."""
        return piece.change(vectors, self.config.target_tokens, self.config.skip_tokens)

    def _each_chunk(self, vectors: Tensor, work: Callable[[int, slice, Tensor], None]) -> None:
        """Call work(prompt, rows, vectors[rows]) for this process's rows; where memory runs out, again with half.

        `work` may add to results only as its last step.
        """
        first, end = my_rows(len(vectors))
        for prompt, piece in enumerate(self.slices):
            start = first
            while start < end:
                size, full = 1, False
                try:
                    size = min(rows_per_chunk(piece, self._most_rows), end - start)
                    rows = slice(start, start + size)
                    work(prompt, rows, vectors[rows].detach().to(piece.source.device, copy=True))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    full = True
                if full:  # outside the handler, which holds on to the failed pass's tensors
                    self._halve(size)
                else:
                    start += size

    def _halve(self, rows: int) -> None:
        if rows == 1:
            raise MemoryLimitError(
                "the device is out of memory with a single vector; use a shorter prompt, a smaller model, layers "
                "that are closer together, or a larger device."
            )
        self._most_rows = rows // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def rows_per_chunk(piece: Slice, most: int | None = None) -> int:
    """Rows of one forward and backward pass: what fits the free memory (a power of two), at most CHUNK_TOKENS."""
    device = piece.source.device
    rows = CHUNK_TOKENS.get(device.type, CHUNK_TOKENS["cpu"]) // piece.source.shape[1]
    if piece.row_bytes:
        sharing = 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        fit = int(free_bytes(device) / sharing * MEMORY_SHARE / piece.row_bytes)
        rows = min(rows, 1 << max(0, fit.bit_length() - 1))
    return max(1, min(rows, most or rows))


@contextmanager
def plain_attention(loaded: LoadedModel) -> Iterator[None]:
    """Switch a model away from attention that `twice_differentiable` cannot handle (flash), and put it back.

    Masks depend on the implementation: make the slices within the block, too.
    """
    before = getattr(loaded.model.config, "_attn_implementation", "eager")
    switched = before not in ("eager", "sdpa", None)
    if switched:
        loaded.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if switched:
            loaded.model.set_attn_implementation(before)


def check_finite(step: int, **tensors: Tensor) -> None:
    """Raise TrainingError that names the first row that is not finite."""
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor)
        bad = bad if bad.ndim == 1 else bad.flatten(1).any(dim=1)
        if bool(bad.any()):
            raise TrainingError(
                f"the {name} of vector {int(bad.nonzero()[0])} is not finite at step {step}; "
                "lower the radius, or load the model in float32."
            )
