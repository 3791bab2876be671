"""Make a bank of vectors that were found elsewhere: bring them to one norm, and measure what they do here.

A bank's vectors share one norm R. If those of a file do not, R is their mean norm, and each vector's annotation
"scale" is the factor that gives the file's vector back. Objective and output directions are measured with the given
config, as for the bank's own vectors. Neither file nor config says how the vectors were found; details["imported"] says
where they come from.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from melbo.bank.annotation import Annotation
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.choose_radius import choose_radius
from melbo.discovery.discover import make_slices, measured_bank
from melbo.discovery.problem import Problem
from melbo.errors import BankError, TrainingError
from melbo.formats.read_vectors import ForeignVectors
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.checkpoint import Run
from melbo.steering.slices import mean_residual_norm

SAME_NORM = 5e-4
"""Norms count as equal if they differ from their mean by at most this share."""
ORTHOGONAL = 1e-3
"""Two vectors count as orthogonal up to this |cosine|."""


def import_vectors(
    loaded: LoadedModel,
    foreign: ForeignVectors,
    config: DiscoveryConfig,
    prompts: Sequence[Sequence[Message]],
    source: str = "",
) -> VectorBank:
    """A bank of a foreign file's vectors, measured on this model.

    Args:
        config: layers and objective to measure with, in our layer convention (`config.from_published_layers`); the
            vectors' own values replace its n_vectors, radius and orthogonality. source_layer may be None if the file
            names it.
        prompts: conversations to measure on, such as those that the vectors were found with.
        source: where the vectors come from, for details["imported"].

    Raises:
        BankError: the vectors do not fit the model, or their source layer is unknown.
        ConfigError, PromptError: the layers, the norm or the prompts do not fit the model.
        TrainingError: the activations are not finite.
    """
    layer = _source_layer(foreign, config)
    if foreign.vectors.shape[1] != loaded.d_model:
        raise BankError(
            f"the file's vectors have {foreign.vectors.shape[1]} numbers, but {loaded.name!r} has d_model "
            f"{loaded.d_model}; name the model that they were made for."
        )
    vectors, scales = to_one_norm(foreign.vectors)
    radius = float(vectors.norm(dim=-1).double().mean())
    config = replace(
        config,
        method="imported",
        steps=0,
        source_layer=layer,
        n_vectors=len(vectors),
        radius=radius,
        radius_unit="absolute",
        orthogonal=are_orthogonal(vectors),
    ).resolve(loaded.n_layers, loaded.d_model)
    assert config.target_layer is not None
    problem = Problem(make_slices(loaded, prompts, layer, config.target_layer), config)
    norm = mean_residual_norm(problem.slices)
    choose_radius(problem, config, norm, Run())  # raises ConfigError if it is absurd
    reached = problem.evaluate(vectors.to(loaded.device), gradient=False)
    if not bool(torch.isfinite(reached.objective).all() and torch.isfinite(reached.output).all()):
        raise TrainingError("the target activations are not finite with these vectors; load the model in float32.")
    details = {"imported": {"format": foreign.format, "source": source}}
    bank = measured_bank(loaded, config, prompts, vectors, reached, radius, norm, details)
    return replace(bank, annotations=() if scales is None else tuple(Annotation(scale=s) for s in scales.tolist()))


def _source_layer(foreign: ForeignVectors, config: DiscoveryConfig) -> int:
    """The layer that the file or the caller names; if both do, they must agree."""
    known = {layer for layer in (foreign.layer, config.source_layer) if layer is not None}
    if not known:
        raise BankError(
            f"a .{foreign.format} file does not say which block its vectors belong to; name one (--source-layer)."
        )
    if len(known) > 1:
        raise BankError(
            f"the file's vectors belong to the output of block {foreign.layer}, not to that of {config.source_layer}."
        )
    return known.pop()


def to_one_norm(vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    """The same directions [n, d_model] at their mean norm, and norm / mean norm [n] of each.

    Vectors of equal norm are returned unchanged, with None.
    """
    norms = vectors.double().norm(dim=-1)
    scales = norms / norms.mean()
    if float((scales - 1).abs().max()) <= SAME_NORM:
        return vectors, None
    return (vectors.double() / scales[:, None]).to(torch.float32), scales


def are_orthogonal(vectors: Tensor) -> bool:
    """Whether no two of the vectors [n, d_model] have a |cosine| above ORTHOGONAL."""
    if len(vectors) > vectors.shape[1]:
        return False
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return bool((unit @ unit.T - torch.eye(len(unit))).abs().max() <= ORTHOGONAL)
