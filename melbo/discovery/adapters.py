"""Rank-1 adapters instead of vectors: the exponential DCT's gradient iteration, on LoRA factors of a band of layers.

CPE (Mack, Panickssery, Turner 2026, arXiv 2606.29604) adapts attention out-projections; the adapters of the original
MELBO post (Mack & Turner 2024) adapt MLP out-projections. Adapter i adds (a[i, l] . x) b[i, l] to the output of block
l's out-projection, x its input. Maximised is the displacement D (p = 2, q = 1): the sum of the target activations'
squared changes at the last tokens, over the prompts.
1. Start: random a of unit norm per layer, random orthogonal b of norm R over all layers together.
2. g <- gradient of D for all adapters at once, rows of one batch.
3. In turn: b <- g_b, made orthogonal in fixed order over all layers together, times R; or a[i, l] <- g_a[i, l],
   normalised. Repeat from 2.
One factor at a time, because D is convex in each where the slice is linear: such a step never lowers it, but for the
orthogonality. Steps in both at once end lower.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from melbo.bank.adapter_bank import AdapterBank
from melbo.bank.adapter_config import AdapterConfig, AdapterKind
from melbo.bank.vector_bank import BaseModel, library_versions
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import make_slices
from melbo.discovery.objective import displacement
from melbo.discovery.problem import Problem, check_finite
from melbo.errors import ModelError
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.checkpoint import Run
from melbo.runs.processes import start_processes, sum_over_processes
from melbo.runs.progress import OnProgress
from melbo.steering.hooks import adapt, record_linear_inputs
from melbo.steering.random_vectors import control_seed
from melbo.steering.slices import Slice, mean_residual_norm
from melbo.steering.sphere import to_sphere

PARENTS: dict[AdapterKind, tuple[str, ...]] = {
    "attention": ("self_attn", "attn", "attn.attention", "attention", "self_attention"),
    "mlp": ("mlp", "ffn", ""),
}
LEAVES: dict[AdapterKind, tuple[str, ...]] = {
    "attention": ("o_proj", "out_proj", "c_proj", "dense"),
    "mlp": ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out"),
}
"""Names of out-projections within a block; where they are not in a block itself, in one of its PARENTS."""


def discover_adapters(
    loaded: LoadedModel,
    config: AdapterConfig,
    prompts: Sequence[Sequence[Message]],
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> AdapterBank:
    """Find adapters, and measure as many random ones of the same norms.

    Args:
        config: settings; layers left at None are resolved from the model's depth and stored resolved.
        prompts: conversations, each a list of {"role", "content"} messages that ends with the user's.
        progress: as in `melbo.discovery.discover.discover`.
        checkpoint: the same.

    Raises:
        ConfigError, PromptError, ModelError: bad settings or prompts, or a model without known out-projections.
        TrainingError: the objective is not finite, or the checkpoint is of another run.
        MemoryLimitError: not even one adapter fits the device.
    """
    start_processes()
    config = config.resolve(loaded.n_layers, loaded.d_model)
    names, modules, transposed = find_projections(loaded, config)
    assert config.first_layer is not None and config.target_layer is not None
    slices = make_slices(loaded, prompts, config.first_layer - 1, config.target_layer)  # with the band's first block
    problem = AdapterProblem(slices, config, modules)
    radius = config.radius
    if config.radius_unit == "residual":
        inputs = mean_input_norm(problem.slices, modules)
        radius *= mean_residual_norm(problem.slices) / inputs if inputs else math.inf
    check_finite(0, radius=torch.tensor([radius]))
    shape = (len(modules), in_features(modules[0]), loaded.d_model)
    a, b = (t.to(loaded.device) for t in random_factors(config, *shape, radius, config.seed))
    run = Run(progress, checkpoint, run_key(loaded, asdict(config), prompts))
    a, b = iterate(problem, a, b, radius, run)
    control = (t.to(loaded.device) for t in random_factors(config, *shape, radius, control_seed(config.seed)))
    found, random = problem.displacement(a, b), problem.displacement(*control)
    check_finite(config.steps, objective=found, control=random)
    return AdapterBank(
        a=a.cpu(),
        b=b.cpu(),
        objective=found.cpu(),
        random_objective=random.cpu(),
        config=config,
        base_model=BaseModel(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers),
        radius=radius,
        modules=names,
        fan_in_fan_out=transposed,
        prompts=tuple(tuple(dict(m) for m in p) for p in prompts),
        versions=library_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class AdapterProblem(Problem):
    """The displacement of adapters; slices, chunks of rows and processes as for vectors."""

    def __init__(self, slices: list[Slice], config: AdapterConfig, modules: Sequence[nn.Module]) -> None:
        super().__init__(slices, DiscoveryConfig(target_tokens=config.target_tokens, power=2.0, root=1.0))
        self.modules, self.adapters = modules, config

    def displacement(self, a: Tensor, b: Tensor) -> Tensor:
        """Objective [n]."""
        return self._displacement(a, b, False)[0]

    def gradient(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective [n] and its gradients in a [n, layers, in_features] and b [n, layers, d_model]."""
        objective, gradient = self._displacement(a, b, True)
        size = a[0].numel()
        return objective, gradient[:, :size].view_as(a), gradient[:, size:].view_as(b)

    def _displacement(self, a: Tensor, b: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
        theta = torch.cat([a.flatten(1), b.flatten(1)], dim=1)  # [n, layers * (in_features + d_model)]
        size = a[0].numel()
        objective, grad = theta.new_zeros(len(theta)), torch.zeros_like(theta)

        def work(prompt: int, rows: slice, part: Tensor) -> None:
            piece = self.slices[prompt]
            part.requires_grad_(gradient)
            own_a = part[:, :size].reshape(-1, *a.shape[1:])
            own_b = part[:, size:].reshape(-1, *b.shape[1:])
            unsteered = piece.source.new_zeros(len(part), piece.source.shape[-1])
            with torch.set_grad_enabled(gradient), adapt(self.modules, own_a, own_b):
                change = piece.change(unsteered, self.config.target_tokens)
                value = displacement(change, self.config.power, self.config.root)
            if gradient:
                (g,) = torch.autograd.grad(value.sum(), part)
                grad[rows] += g.to(grad)
            objective[rows] += value.detach().to(objective)

        self._each_chunk(theta, work)
        sum_over_processes(objective, grad)
        return objective, grad


def iterate(problem: AdapterProblem, a: Tensor, b: Tensor, radius: float, run: Run) -> tuple[Tensor, Tensor]:
    """Steps 2 and 3 of the module's docstring, from a [n, layers, in_features] and b [n, layers, d_model]."""
    config = problem.adapters
    first, saved = run.restore()
    if saved:
        a, b = saved["a"].to(a), saved["b"].to(b)
    for step in range(first, config.steps):
        objective, grad_a, grad_b = problem.gradient(a, b)
        check_finite(step, objective=objective, gradient=grad_a if step % 2 else grad_b)
        new_a, new_b = to_norms(grad_a, grad_b, radius, config.orthogonal)
        a, b = (new_a, b) if step % 2 else (a, new_b)
        run.step(step + 1, config.steps, float(objective.mean()), {"a": a, "b": b})
    return a, b


def to_norms(a: Tensor, b: Tensor, radius: float, orthogonal: bool) -> tuple[Tensor, Tensor]:
    """A with unit norm per layer; b with norm R over all layers, orthogonal to the rows before if asked."""
    flat = to_sphere(b.flatten(1), radius, orthogonal)
    return nn.functional.normalize(a, dim=2), flat.view_as(b)


def random_factors(
    config: AdapterConfig, layers: int, inputs: int, d_model: int, radius: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Random a [n, layers, inputs] and b [n, layers, d_model], float32 on CPU; the first k do not depend on n."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randn(layers, inputs + d_model, generator=generator) for _ in range(config.n_adapters)])
    return to_norms(drawn[:, :, :inputs], drawn[:, :, inputs:], radius, config.orthogonal)


def find_projections(loaded: LoadedModel, config: AdapterConfig) -> tuple[tuple[str, ...], list[nn.Module], bool]:
    """Names and modules of the band's out-projections, and whether they hold their weight transposed.

    Raises:
        ModelError: a block has none of the known names, or the band's differ in size.
    """
    paths = [f"{p}.{leaf}".lstrip(".") for p in PARENTS[config.kind] for leaf in LEAVES[config.kind]]
    modules = []
    for layer in config.layers:
        known = dict(loaded.blocks[layer].named_modules())
        found = [known[path] for path in paths if path in known and hasattr(known[path], "weight")]
        if not found:
            raise ModelError(
                f"block {layer} of {type(loaded.model).__name__} has no {config.kind} out-projection at "
                f"{', '.join(paths)}; use another kind of adapter, or another model."
            )
        modules.append(found[0])
    if len({(in_features(m), isinstance(m, Conv1D)) for m in modules}) > 1:
        raise ModelError(
            f"the {config.kind} out-projections of blocks {config.first_layer} to {config.last_layer} differ in size; "
            "choose a band where they are alike."
        )
    names = {id(module): name for name, module in loaded.model.named_modules()}
    return tuple(names[id(m)] for m in modules), modules, isinstance(modules[0], Conv1D)


def mean_input_norm(slices: Sequence[Slice], modules: Sequence[nn.Module]) -> float:
    """Mean L2 norm of the modules' inputs over all prompt tokens but each prompt's first, as `mean_residual_norm`."""
    norms = []
    for piece in slices:
        with torch.no_grad(), record_linear_inputs(modules) as inputs:
            piece.run(torch.zeros_like(piece.source[:, 0]))
        first = min(1, piece.source.shape[1] - 1)
        norms += [x.flatten(0, -2)[first:].float().norm(dim=-1).mean().cpu() for x in inputs]
    return float(torch.stack(norms).mean())


def in_features(module: Any) -> int:
    """Width of a linear layer's input."""
    return int(module.weight.shape[0] if isinstance(module, Conv1D) else module.in_features)
