"""Train a TopK SAE on activations: small dictionaries on a CPU in a minute or two.

Gao et al. 2024 (arXiv 2406.04093), without their auxiliary loss (`measure_sae` reports how many features die):
1. activations are centred and scaled to a root mean square norm of 1; decoder rows start as random unit vectors, the
   encoder as their copy, the decoder's bias as the mean;
2. each step: the k largest pre-activations reconstruct a batch; the gradient of the squared error is written out by
   hand, since only k of d_sae features take part and automatic differentiation would go through all of them;
3. Adam takes a step; decoder gradients are kept tangent to the sphere and decoder rows at norm 1.
The scale is folded back at the end, so that the SAE reads plain activations. Libraries for this (sae-lens, sparsify)
bring TransformerLens or datasets along; this needs torch alone.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from melbo.errors import SaeError, TrainingError
from melbo.inspect.sae.dictionary import Sae, SaeSpec
from melbo.runs.checkpoint import Run
from melbo.runs.digest import content_digest
from melbo.runs.progress import OnProgress
from melbo.runs.settings import Settings, Size

_NAMES = ("encoder", "encoder_bias", "decoder", "decoder_bias")
MEASURED = 4096
"""Activations encoded at once where quality is measured."""


@dataclass(frozen=True)
class SaeConfig(Settings):
    """Settings of a training run."""

    fault = SaeError
    d_sae: Annotated[int, Field(ge=2, lt=2**31)] = 1024
    """Features."""
    k: Size = 16
    """Features active per token."""
    steps: Size = 400
    """Optimiser steps."""
    batch: Size = 2048
    """Activations a step."""
    lr: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    """Adam's learning rate; rises over the first 5% of the steps and falls over the last 30%."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the starting directions and of the order of the activations."""

    def check(self) -> None:
        """What takes more than one field."""
        if self.k > self.d_sae:
            raise SaeError(f"k is {self.k}; it must be at most d_sae = {self.d_sae}.")

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        rise, fall = max(1.0, 0.05 * self.steps), max(1.0, 0.3 * self.steps)
        return self.lr * min(1.0, (step + 1) / rise, (self.steps - step) / fall)


@dataclass(frozen=True)
class SaeQuality:
    """How well an SAE reconstructs activations it was not trained on."""

    explained_variance: float
    """1 - squared error / squared distance from the mean."""
    l0: float
    """Active features per activation."""
    dead_share: float
    """Share of features that were active on none."""
    activations: int
    """How many were measured."""


def train_sae(
    activations: Tensor,
    layer: int,
    model_name: str,
    config: SaeConfig | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> Sae:
    """Train an SAE.

    Args:
        activations: residual streams [N, d_model], any float type; N >= config.batch.
        layer: block whose output they are; model_name: the model's name; both are stored.
        progress: called after each step; its value is the unexplained share of the batch. Raise to cancel.
        checkpoint: file to go on from after an interruption; the result is the same.

    Raises:
        SaeError: too few activations, or not finite ones.
        TrainingError: the loss is not finite, or the checkpoint is of another run.
    """
    config = config or SaeConfig()
    if activations.ndim != 2 or len(activations) < config.batch:
        raise SaeError(
            f"the activations have shape {list(activations.shape)}; an SAE needs [N, d_model] with at least one batch, "
            f"N >= {config.batch}."
        )
    mean, scale = _mean_and_scale(activations)
    key = {"sae": asdict(config), "layer": layer, "activations": content_digest(activations)}
    run = Run(progress, checkpoint, key)
    parameters = _start(config, activations.shape[1])
    optimizer = torch.optim.Adam(list(parameters.values()), lr=config.lr)
    first, saved = run.restore()
    if saved:
        _restore(parameters, optimizer, saved, first)
    for step in range(first, config.steps):
        optimizer.param_groups[0]["lr"] = config.rate(step)
        rows = _batch(len(activations), step, config)
        lost = _backward(parameters, (activations[rows].float() - mean) / scale, config.k)
        if not lost < float("inf"):
            raise TrainingError(f"the SAE's loss is not finite at step {step}; lower lr ({config.lr:g}).")
        optimizer.step()
        decoder = parameters["decoder"].data
        decoder.div_(decoder.norm(dim=1, keepdim=True).clamp_min(1e-12))
        run.step(step + 1, config.steps, lost, _state(parameters, optimizer))
    found = {name: value.detach() for name, value in parameters.items()}
    spec = SaeSpec(activations.shape[1], config.d_sae, "topk", config.k, layer, model_name)
    return Sae(
        spec, found["encoder"], found["encoder_bias"] * scale, found["decoder"], found["decoder_bias"] * scale + mean
    )


def _mean_and_scale(activations: Tensor) -> tuple[Tensor, float]:
    """Mean [d_model] and root mean square distance from it, over at most 65,536 activations spread evenly."""
    part = activations[:: max(1, len(activations) // 65536)].float()
    mean = part.mean(dim=0)
    scale = float((part - mean).square().sum(dim=1).mean().sqrt())
    if not 0 < scale < float("inf"):
        raise SaeError("the activations are all equal or not finite; load the model in float32 and use varied texts.")
    return mean, scale


def _start(config: SaeConfig, d_model: int) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(config.seed)
    rows = torch.nn.functional.normalize(torch.randn(config.d_sae, d_model, generator=generator), dim=-1)
    values = (rows, torch.zeros(config.d_sae), rows.clone(), torch.zeros(d_model))
    return {name: torch.nn.Parameter(value) for name, value in zip(_NAMES, values, strict=True)}


def _batch(n: int, step: int, config: SaeConfig) -> Tensor:
    """Row numbers of a step; every epoch has an order of its own, and drops what does not fill a batch."""
    epoch, place = divmod(step, n // config.batch)
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    return torch.randperm(n, generator=generator)[place * config.batch : (place + 1) * config.batch]


def _backward(parameters: dict[str, torch.nn.Parameter], x: Tensor, k: int) -> float:
    """Set the gradients of the mean squared error of a batch x [B, d_model]; returns error / mean square of x.

    With z the k active features' values, e = z W_dec + b_dec - x and u = e W_dec' at these features:
    dW_dec = z' e, db_dec = e - (u W_enc where z > 0), dW_enc = (u where z > 0)' (x - b_dec); all times 2 / B.
    """
    encoder, bias, decoder, offset = (parameters[name].data for name in _NAMES)
    centred = x - offset
    before = torch.nn.functional.linear(centred, encoder, bias)  # [B, d_sae]
    values, features = before.topk(k, dim=1, sorted=False)
    values = values.relu()  # [B, k]
    combine = torch.nn.functional.embedding_bag
    error = combine(features, decoder, per_sample_weights=values, mode="sum") + offset - x
    pulled = torch.bmm(decoder[features], error[:, :, None])[:, :, 0] * (values > 0)  # [B, k]
    through = combine(features, encoder, per_sample_weights=pulled, mode="sum")
    gradients = {
        "encoder": _scatter(features, pulled, centred, len(encoder)),
        "encoder_bias": torch.zeros_like(bias).index_add_(0, features.flatten(), pulled.flatten()),
        "decoder": _scatter(features, values, error, len(encoder)),
        "decoder_bias": (error - through).sum(dim=0),
    }
    inward = (gradients["decoder"] * decoder).sum(dim=1, keepdim=True)
    gradients["decoder"] -= inward * decoder
    for name, gradient in gradients.items():
        parameters[name].grad = gradient * (2 / len(x))
    return float(error.square().sum() / x.square().sum())


def _scatter(features: Tensor, weights: Tensor, rows: Tensor, d_sae: int) -> Tensor:
    """Sum over the batch of weights[b, j] * rows[b], to row features[b, j]; [d_sae, d_model]."""
    batch, k = features.shape
    places = torch.stack([features.flatten(), torch.arange(batch, device=features.device).repeat_interleave(k)])
    return torch.sparse_coo_tensor(places, weights.flatten(), (d_sae, batch), check_invariants=True) @ rows


def _state(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    moments = {
        f"{name}.{key}": optimizer.state[value][key]
        for name, value in parameters.items()
        for key in ("exp_avg", "exp_avg_sq")
    }
    return {**{name: value.data for name, value in parameters.items()}, **moments}


def _restore(
    parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Adam, saved: dict[str, Tensor], step: int
) -> None:
    for name, value in parameters.items():
        value.data = saved[name]
        moments = {key: saved[f"{name}.{key}"] for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[value] = {"step": torch.tensor(float(step)), **moments}


def measure_sae(sae: Sae, activations: Tensor) -> SaeQuality:
    """Quality on activations [N, d_model]; use ones that the SAE was not trained on.

    Raises:
        SaeError: there is no activation.
    """
    if not len(activations):
        raise SaeError("there are no activations to measure the SAE on.")
    mean = activations.float().mean(dim=0)
    lost = total = active = 0.0
    seen = torch.zeros(len(sae), dtype=torch.bool)
    for part in activations.split(MEASURED):
        x = part.float()
        z = sae.encode(x)
        lost += float((x - sae.decode(z)).square().sum())
        total += float((x - mean).square().sum())
        active += float((z > 0).sum())
        seen |= (z > 0).any(dim=0).cpu()
    n = len(activations)
    return SaeQuality(1 - lost / max(total, 1e-12), active / n, float((~seen).float().mean()), n)
