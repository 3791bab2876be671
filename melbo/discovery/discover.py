"""Discovery: prompts in, a bank of steering vectors out. One file per method; this one holds what they share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.bank.vector_bank import BaseModel, VectorBank, library_versions
from melbo.config import DiscoveryConfig
from melbo.discovery.attention_sink import place_layers
from melbo.discovery.choose_radius import CoherentRadius, choose_radius
from melbo.discovery.methods import dct, more_like, power, sae_basis
from melbo.discovery.methods.displacement import maximize
from melbo.discovery.problem import Evaluation, Problem, plain_attention
from melbo.errors import BankError, ConfigError, PromptError, TrainingError
from melbo.measure.coherence import CoherenceScale
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.runs.checkpoint import Run
from melbo.runs.digest import content_digest
from melbo.runs.processes import start_processes
from melbo.runs.progress import OnProgress
from melbo.steering.random_vectors import control_seed, random_vectors
from melbo.steering.slices import Slice, make_slice, mean_residual_norm


@dataclass(frozen=True)
class Found:
    """What a method returns."""

    vectors: Tensor
    """[n, d_model] of norm R."""
    score: Tensor | None = None
    """[n] the method's own measure of each vector, where it has one besides the objective."""
    reached: Evaluation | None = None
    """What the vectors reach, where the method has evaluated them."""
    details: dict[str, Any] = field(default_factory=dict)
    """What the method adds to the bank's details."""


def make_slices(
    loaded: LoadedModel, prompts: Sequence[Sequence[Message]], source_layer: int, target_layer: int
) -> list[Slice]:
    """One slice per prompt (a conversation as messages), so that prompts of any lengths need no padding."""
    if not prompts:
        raise PromptError("no prompt was given; discovery needs at least one.")
    ids = [encode(loaded.tokenizer, p, loaded.context) for p in prompts]
    return [make_slice(loaded, i.to(loaded.device), source_layer, target_layer) for i in ids]


def discover(
    loaded: LoadedModel,
    config: DiscoveryConfig,
    prompts: Sequence[Sequence[Message]],
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    reference: Tensor | None = None,
    decoder: Tensor | None = None,
    coherence_scale: CoherenceScale | None = None,
) -> VectorBank:
    """Find a bank of steering vectors.

    Args:
        config: settings; layers and steps left at None are resolved from the model's depth and stored resolved.
        prompts: conversations, each a list of {"role", "content"} messages that ends with the user's.
        progress: called after each step; its value is the mean objective. An exception from it cancels the run.
        checkpoint: file that an interrupted run of the same config, prompts and model goes on from; delete it once
            the bank is saved.
        reference: the vector [d_model] that method "more-like" starts from.
        decoder: the directions [d_sae, d_model] of an SAE at the source layer, that method "sae-basis" adds up; which
            ones, and how much of each, is in the bank's details["parts"].
        coherence_scale: of the model, for radius "auto"; None: calibrated.

    Returns:
        A bank whose vectors all have norm R. The same config, model and machine give the same bank, interrupted or
        not; other chunk sizes (less free memory) or more processes change it by rounding only.

    Raises:
        ConfigError, PromptError: bad settings or prompts.
        TrainingError: the objective is not finite, or the checkpoint is of another run.
        MemoryLimitError: not even one vector fits the device.
    """
    start_processes()
    config, seen = place_layers(loaded, config, prompts)
    assert config.source_layer is not None and config.target_layer is not None
    if (reference is None) == (config.method == "more-like"):
        raise ConfigError(f"method {config.method!r} and a reference vector do not go together; 'more-like' needs one.")
    if (decoder is None) == (config.method == "sae-basis"):
        raise ConfigError(f"method {config.method!r} and a decoder do not go together; 'sae-basis' needs one.")
    with plain_attention(loaded):
        slices = make_slices(loaded, prompts, config.source_layer, config.target_layer)
        problem = Problem(slices, config)
        norm = mean_residual_norm(slices)
        if not math.isfinite(norm):
            raise TrainingError("the model's activations are not finite; load it in float32.")
        both = {"reference": reference, "decoder": decoder}
        given = {name: content_digest(tensor) for name, tensor in both.items() if tensor is not None}
        run = Run(progress, checkpoint, run_key(loaded, config.to_dict(), prompts, **given))
        coherent = CoherentRadius(loaded, problem, config, prompts, coherence_scale)
        radius, details = choose_radius(problem, config, norm, run, coherent if config.radius_unit == "auto" else None)
        start = random_vectors(config.n_vectors, loaded.d_model, radius, config.orthogonal, config.seed)
        found = run_method(problem, start.to(loaded.device), radius, config, run, reference, decoder)
        evaluation = found.reached or problem.evaluate(found.vectors, gradient=False)
    made = [found.vectors, evaluation.objective, evaluation.output, *([] if found.score is None else [found.score])]
    if not all(bool(torch.isfinite(t).all()) for t in made):
        raise TrainingError("the target activations are not finite at this radius; lower it, or use float32.")
    bank = measured_bank(
        loaded,
        config,
        prompts,
        found.vectors,
        evaluation,
        radius,
        norm,
        {"dtype": loaded.dtype, **seen, **details, **found.details},
    )
    return replace(bank, score=None if found.score is None else found.score.to("cpu", torch.float32))


def measured_bank(
    loaded: LoadedModel,
    config: DiscoveryConfig,
    prompts: Sequence[Sequence[Message]],
    vectors: Tensor,
    reached: Evaluation,
    radius: float,
    norm: float,
    details: dict[str, Any],
) -> VectorBank:
    """The bank of these vectors, made now.

    Args:
        config: resolved.
        vectors: [n, d_model], each of norm `radius`.
        reached: what they reach on the prompts.
        norm: mean residual norm at the source layer.
    """
    return VectorBank(
        vectors=vectors.to("cpu", torch.float32),
        objective=reached.objective.to("cpu", torch.float32),
        output_directions=torch.nn.functional.normalize(reached.output.to("cpu", torch.float32), dim=-1),
        config=config,
        base_model=BaseModel(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers),
        radius=radius,
        mean_residual_norm=norm,
        prompts=tuple(tuple(dict(m) for m in p) for p in prompts),
        versions=library_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        details=details,
    )


def run_method(
    problem: Problem,
    start: Tensor,
    radius: float,
    config: DiscoveryConfig,
    run: Run,
    reference: Tensor | None,
    decoder: Tensor | None = None,
) -> Found:
    """Call config.method's file."""
    if config.method == "random":
        return Found(start)
    if config.method == "imported":
        raise ConfigError("method 'imported' marks vectors of other libraries' files; `melbo import` reads them.")
    if config.method == "melbo":
        return Found(maximize(lambda v, effects: problem.evaluate(v, others=effects), start, radius, config, run))
    if config.method == "dct":
        return Found(*dct.find(problem, start, radius, config, run))
    if config.method == "power":
        return Found(*power.find(problem, start, radius, config, run))
    if decoder is not None:
        vectors, weights = sae_basis.find(problem, start, radius, config, run, decoder)
        return Found(vectors, details={"parts": sae_basis.parts(weights)})
    assert reference is not None
    return Found(*more_like.find(problem, start, radius, config, run, reference))


def random_control(loaded: LoadedModel, bank: VectorBank) -> VectorBank:
    """The bank's control: as many random vectors of the same norm, measured on the same prompts and layers."""
    bank.check_fits(loaded)
    config = replace(
        bank.config,
        method="random",
        steps=0,
        n_vectors=len(bank),
        radius=bank.radius,
        radius_unit="absolute",
        seed=control_seed(bank.config.seed),
    )
    return discover(loaded, config, bank.prompts)


def find_more_like(
    loaded: LoadedModel,
    bank: VectorBank,
    index: int,
    n_vectors: int = 16,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    steps: int | None = None,
) -> VectorBank:
    """Vectors with the effect of one of the bank's, orthogonal to it and to each other; their score says how alike."""
    bank.check_fits(loaded)
    config = replace(
        bank.config,
        method="more-like",
        steps=steps,
        n_vectors=n_vectors,
        radius=bank.radius,
        radius_unit="absolute",
        orthogonal=True,
        seed=(bank.config.seed + 1) % 2**32,  # a random bank's own vectors are the starts of its seed
    )
    if n_vectors >= loaded.d_model:
        raise BankError(
            f"{n_vectors} vectors and the given one cannot all be orthogonal in {loaded.d_model} dimensions."
        )
    found = discover(loaded, config, bank.prompts, progress, checkpoint, bank.vector(index))
    return replace(found, details={**found.details, "like": {"vector": index, "label": bank.label(index)}})
