"""Layer atlas: how strongly each later layer answers to a vector at each earlier one, to first order.

For every pair of source s and target t, with J the derivative at zero of all target tokens' activations of all prompts
(power steering, Ayyub 2026):
1. k orthonormal directions go to J's top right singular vectors by block power iteration on J'J (discover/power.py).
2. Sensitivity is the root mean square of ||J v|| over those directions v, the prompts and the target tokens. It does
   not change with a rotation of the directions among themselves, and it comes from below as they converge.
3. The control is the same for k random orthonormal directions.
4. Both are also given relative to the mean residual norms at s and t, so that pairs can be compared: a relative
   sensitivity of 2 says that a vector as long as the residual stream at s would move t by twice the norm there.

The blocks' arguments and every layer's residual stream are captured once per prompt and serve all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from melbo.bank.vector_bank import BaseModel
from melbo.config import DiscoveryConfig, default_layers
from melbo.discovery.discover import make_slices
from melbo.discovery.methods import power
from melbo.discovery.problem import Problem, plain_attention
from melbo.errors import ConfigError
from melbo.inspect.layers.atlas import AtlasConfig, AtlasError, LayerAtlas, Pair
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.checkpoint import Checkpoint, Run
from melbo.runs.processes import start_processes
from melbo.runs.progress import OnProgress, notify
from melbo.steering.hooks import capture
from melbo.steering.random_vectors import control_vectors, random_vectors
from melbo.steering.slices import Slice, mean_residual_norm

__all__ = ["AtlasConfig", "AtlasError", "LayerAtlas", "Pair", "layer_atlas"]


def layer_atlas(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    config: AtlasConfig | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> LayerAtlas:
    """Measure every source/target pair of a model.

    Args:
        prompts: conversations, each a list of {"role", "content"} messages that ends with the user's.
        progress: called after each pair; its value is the pair's relative sensitivity. Raise to cancel.
        checkpoint: file of finished pairs that an interrupted run of the same model, settings and prompts goes on
            from, itself an atlas; delete it once the whole is saved.

    Raises:
        ConfigError, PromptError: bad settings or prompts.
        AtlasError: the checkpoint is damaged or of another run, or a sensitivity is not a number greater than 0.
        TrainingError: the model's activations are not finite.
        MemoryLimitError: not even one vector fits the device.
    """
    start_processes()
    config = config or AtlasConfig()
    n = loaded.n_layers
    default_layers(n)  # refuses a model of one block
    if config.k > loaded.d_model:
        raise ConfigError(f"k is {config.k}, but the model has d_model = {loaded.d_model}; ask for at most that many.")
    with plain_attention(loaded):
        recordings = [_Recording.of(whole) for whole in make_slices(loaded, prompts, 0, n - 1)]
        saved = Checkpoint(checkpoint, run_key(loaded, asdict(config), prompts), AtlasError)
        atlas = saved.load(lambda found: LayerAtlas.of(found.values, found.path), lambda found: len(found.pairs))
        if atlas is None:
            told = tuple(tuple(dict(m) for m in p) for p in prompts)
            model = BaseModel(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers)
            atlas = LayerAtlas(model, str(loaded.model.dtype), config, told, ())
        # the file of some pairs is the checkpoint of the run that measures the rest
        atlas = replace(atlas, extra={"key": saved.key})
        done = {(p.source, p.target) for p in atlas.pairs}
        for source, target in ((s, t) for s in range(n - 1) for t in range(s + 1, n) if (s, t) not in done):
            pair = _measure([r.piece(source, target) for r in recordings], config)
            atlas = replace(atlas, pairs=(*atlas.pairs, pair))
            saved.save(atlas.values(), indent=atlas.file.indent)
            notify(progress, len(atlas.pairs), n * (n - 1) // 2, value=pair.relative)
    return atlas


@dataclass(frozen=True)
class _Recording:
    """One prompt: the slice of blocks 1 to the last, and the residual stream [1, T, d_model] at each layer."""

    whole: Slice
    residual: tuple[Tensor, ...]

    @classmethod
    def of(cls, whole: Slice) -> _Recording:
        layers = list(range(1, whole.target_layer + 1))
        with torch.no_grad(), capture(whole.loaded, layers, stop=False) as found:
            whole.run(whole.source.new_zeros(1, whole.source.shape[-1]))
        return cls(whole, (whole.source, *(found[layer] for layer in layers)))

    def piece(self, source: int, target: int) -> Slice:
        """The slice from one layer to another."""
        return replace(
            self.whole,
            source_layer=source,
            target_layer=target,
            source=self.residual[source],
            target=self.residual[target],
            calls=self.whole.calls[source:target],  # calls[0] is block 1's
        )


def _measure(slices: list[Slice], config: AtlasConfig) -> Pair:
    """One pair; what it gives depends on no other pair."""
    first = slices[0]
    settings = DiscoveryConfig(
        method="power", n_vectors=config.k, steps=config.iterations, target_tokens=config.target_tokens
    )
    problem = Problem(slices, settings)
    d_model, device = first.source.shape[-1], first.source.device
    start = random_vectors(config.k, d_model, 1.0, True, config.seed).to(device)
    control = control_vectors(config.k, d_model, 1.0, True, config.seed).to(device)
    _, top = power.find(problem, start, 1.0, settings, Run())
    _, random = problem.gauss_newton(control)
    per_token = math.sqrt(len(slices) * config.target_tokens)  # J stacks all prompts and target tokens
    return Pair(
        first.source_layer,
        first.target_layer,
        sensitivity=float(top.square().mean().sqrt()) / per_token,
        largest=float(top.max()) / per_token,
        random=float(random.square().mean().sqrt()) / per_token,
        source_norm=mean_residual_norm(slices),
        target_norm=mean_residual_norm([replace(s, source=s.target) for s in slices]),
    )
