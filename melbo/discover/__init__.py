"""Discovery: prompts in, a bank of steering vectors out. One file per method; this one holds what they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from melbo.bank import BaseModel, VectorBank, library_versions
from melbo.config import DiscoveryConfig
from melbo.discover.melbo import Progress, objective_and_gradient, train
from melbo.discover.random_control import control_seed, random_vectors
from melbo.errors import ConfigError, PromptError, TrainingError
from melbo.models import LoadedModel
from melbo.prompts import Message, encode
from melbo.slices import Slice, make_slice, mean_residual_norm

__all__ = ["Progress", "discover", "make_slices", "random_control"]


def make_slices(
    loaded: LoadedModel, prompts: Sequence[Sequence[Message]], source_layer: int, target_layer: int
) -> list[Slice]:
    """One slice per prompt (a conversation as messages)."""
    if not prompts:
        raise PromptError("no prompt was given; discovery needs at least one.")
    ids = [encode(loaded.tokenizer, p, loaded.context) for p in prompts]
    return [make_slice(loaded, i.to(loaded.device), source_layer, target_layer) for i in ids]


def discover(
    loaded: LoadedModel,
    config: DiscoveryConfig,
    prompts: Sequence[Sequence[Message]],
    progress: Progress | None = None,
) -> VectorBank:
    """Find a bank of steering vectors.

    Args:
        config: settings; layers left at None are resolved from the model's depth and stored resolved.
        prompts: conversations, each a list of {"role", "content"} messages that ends with the user's.
        progress: called after each step; an exception from it cancels the run.

    Returns:
        A bank whose vectors all have norm R. The same config, model and machine give the same bank.

    Raises:
        ConfigError, PromptError: bad settings or prompts.
        TrainingError: the objective is not finite.
    """
    config = config.resolve(loaded.n_layers, loaded.d_model)
    assert config.source_layer is not None and config.target_layer is not None
    slices = make_slices(loaded, prompts, config.source_layer, config.target_layer)
    shortest = min(s.source.shape[1] for s in slices)
    if config.target_tokens > shortest:
        raise ConfigError(
            f"target_tokens is {config.target_tokens}, but the shortest prompt has {shortest} tokens; lower it."
        )
    norm = mean_residual_norm(slices)
    if not math.isfinite(norm):
        raise TrainingError("the model's activations are not finite; load it in float32.")
    radius = config.radius * norm if config.radius_unit == "residual" else config.radius
    if not 1e-6 < radius / norm < 1e6:
        raise ConfigError(
            f"the radius is {radius:.3g}, {radius / norm:.3g} times the mean residual norm; "
            "useful values lie between 0.01 and 100 times that norm."
        )
    start = random_vectors(config.n_vectors, loaded.d_model, radius, config.orthogonal, config.seed)
    if config.method == "random":
        vectors = start
        objective, _, output = objective_and_gradient(slices, vectors, config, gradient=False)
    else:
        vectors, objective, output = train(slices, start, radius, config, progress)
    return _to_bank(loaded, config, prompts, vectors, objective, output, radius, norm)


def random_control(loaded: LoadedModel, bank: VectorBank) -> VectorBank:
    """The bank's control: as many random vectors of the same norm, measured on the same prompts and layers."""
    bank.check_fits(loaded)
    config = replace(
        bank.config,
        method="random",
        n_vectors=len(bank),
        radius=bank.radius,
        radius_unit="absolute",
        seed=control_seed(bank.config.seed),
    )
    return discover(loaded, config, bank.prompts)


def _to_bank(
    loaded: LoadedModel,
    config: DiscoveryConfig,
    prompts: Sequence[Sequence[Message]],
    vectors: Tensor,
    objective: Tensor,
    output: Tensor,
    radius: float,
    norm: float,
) -> VectorBank:
    if not all(bool(torch.isfinite(t).all()) for t in (vectors, objective, output)):
        raise TrainingError("the target activations are not finite at this radius; lower it, or use float32.")
    base: dict[str, Any] = {"id": loaded.name, "revision": loaded.revision}
    return VectorBank(
        vectors=vectors.to("cpu", torch.float32),
        objective=objective.to("cpu", torch.float32),
        output_directions=torch.nn.functional.normalize(output.to("cpu", torch.float32), dim=-1),
        config=config,
        base_model=BaseModel(d_model=loaded.d_model, n_layers=loaded.n_layers, **base),
        radius=radius,
        mean_residual_norm=norm,
        prompts=tuple(tuple(dict(m) for m in p) for p in prompts),
        versions=library_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
