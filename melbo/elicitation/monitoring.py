"""Watch a model while it answers: projections on a bank's vectors as features, distance to normal chats as alarm.

1. At each generated token, the residual stream at the bank's layer is projected on the bank's directions.
2. A chat's features are the projections at its prompt's last token, or their mean over the answer's first ones too.
3. `fit_monitor` takes mean and covariance of the features of normal chats (scikit-learn); the covariance is shrunk
   towards its diagonal (as in https://doi.org/10.1016/S0047-259X(03)00096-4, but by a fixed share) so that it can be
   inverted with few chats.
4. The alarm is the Mahalanobis distance to them; the threshold is a quantile of distances of other normal chats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.optional import needs
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import edit_outputs

SHRINKAGE = 0.1
"""Share of the covariance that is replaced by its diagonal."""


class Watch:
    """What `watching` fills while the model runs: the projections of the newest token of each pass."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        """For each forward pass [rows, n], float32 on the CPU."""

    def features(self) -> Tensor:
        """Mean over the passes so far, [rows, n].

        Raises:
            ConfigError: the model has not run.
        """
        if not self.steps:
            raise ConfigError("nothing was watched yet; run the model within `watching`.")
        return torch.stack(self.steps).mean(dim=0)


@contextmanager
def watching(loaded: LoadedModel, directions: Tensor, layer: int, tokens: int = 8) -> Iterator[Watch]:
    """Record the projections on unit directions [n, d_model] at the output of block `layer`, and change nothing.

    Args:
        tokens: most forward passes that are recorded: the prompt's last token, then the answer's first ones.
    """
    if directions.ndim != 2 or directions.shape[1] != loaded.d_model or not 0 <= layer < loaded.n_layers:
        raise ConfigError(
            f"directions have shape {list(directions.shape)} and the layer is {layer}; this model needs "
            f"[n, {loaded.d_model}] and a block from 0 to {loaded.n_layers - 1}."
        )
    watch = Watch()

    def record(_block: int, hidden: Tensor) -> Tensor:
        if len(watch.steps) < tokens:
            last = hidden[:, -1].detach().float()
            watch.steps.append((last @ directions.to(last).T).cpu())
        return hidden

    with edit_outputs([loaded.blocks[layer]], record):
        yield watch


def chat_features(
    loaded: LoadedModel,
    bank: VectorBank,
    prompts: Sequence[Sequence[Message]],
    tokens: int = 1,
    batch_size: int = 64,
) -> Tensor:
    """Features [prompts, n] of answering each prompt greedily.

    Args:
        tokens: forward passes that are averaged: 1 is the prompt's last token alone, before anything is answered, which
            tells most where it was measured (docs/elicit.md).
        batch_size: chats run together, where tokens is 1.

    Raises:
        PromptError: there is no prompt. BankError: the bank is of another model.
    """
    bank.check_fits(loaded)
    if not prompts:
        raise PromptError("no chat was given; give at least one.")
    directions = torch.nn.functional.normalize(bank.vectors, dim=-1)
    size = batch_size if tokens == 1 else 1  # later, a row that has ended would go on with padding
    found = []
    for start in range(0, len(prompts), size):
        with watching(loaded, directions, bank.layer, tokens) as watch:
            complete(loaded, prompts[start : start + size], sampling=Sampling(tokens), batch_size=size)
        found.append(watch.features())
    return torch.cat(found)


@dataclass(frozen=True, eq=False)
class Monitor:
    """Where normal chats lie."""

    scaler: Any
    """scikit-learn's StandardScaler of the n features."""
    covariance: Any
    """scikit-learn's ShrunkCovariance of the scaled features: there, the diagonal is the identity it shrinks to."""
    threshold: float
    """Distance above which a chat is reported."""

    def distances(self, features: Tensor) -> Tensor:
        """Mahalanobis distance [rows] of features [rows, n].

        Raises:
            ConfigError: another number of features.
        """
        n = self.scaler.n_features_in_
        if features.ndim != 2 or features.shape[1] != n:
            raise ConfigError(f"features have shape {list(features.shape)}; this monitor needs [, {n}].")
        squared = self.covariance.mahalanobis(self.scaler.transform(features.double().numpy()))
        bessel = 1 - 1 / int(self.scaler.n_samples_seen_)  # scikit-learn divides by n, not by n - 1
        return torch.from_numpy(squared).clamp_min(0).mul(bessel).sqrt()

    def alarms(self, features: Tensor) -> Tensor:
        """Whether each row lies beyond the threshold, bool [rows]."""
        return self.distances(features) > self.threshold


def fit_monitor(normal: Tensor, held: Tensor, false_alarms: float = 0.05, shrinkage: float = SHRINKAGE) -> Monitor:
    """A monitor of normal chats.

    Args:
        normal: features [rows, n] that mean and covariance are taken of, at least 2 rows.
        held: features of other normal chats; the threshold is their quantile at 1 - false_alarms.
        shrinkage: above 0, at most 1.

    Raises:
        ConfigError: too few rows, other widths, or a share out of range.
    """
    if normal.ndim != 2 or held.ndim != 2 or len(normal) < 2 or len(held) < 1 or normal.shape[1] != held.shape[1]:
        raise ConfigError(
            f"the normal chats' features have shapes {list(normal.shape)} and {list(held.shape)}; give [rows, n] with "
            "at least 2 and 1 rows and the same n."
        )
    if not 0 < false_alarms < 1 or not 0 < shrinkage <= 1:
        raise ConfigError(
            f"false_alarms is {false_alarms} and shrinkage {shrinkage}; use a share between 0 and 1, above 0 and to 1."
        )
    with needs("measure"):
        from sklearn.covariance import ShrunkCovariance
        from sklearn.preprocessing import StandardScaler
    scaler = StandardScaler()
    scaled = scaler.fit_transform(normal.double().numpy())
    monitor = Monitor(scaler, ShrunkCovariance(shrinkage=shrinkage).fit(scaled), 0.0)
    return replace(monitor, threshold=float(torch.quantile(monitor.distances(held), 1 - false_alarms)))


@dataclass(frozen=True)
class Roc:
    """How well a number tells anomalies from normal chats."""

    false_alarms: tuple[float, ...]
    """Share of normal chats at or above each threshold, rising from 0 to 1."""
    hits: tuple[float, ...]
    """Share of anomalies there."""
    area: float
    """Area under the curve: the chance that an anomaly scores above a normal chat; ties count half."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {"false_alarms": list(self.false_alarms), "hits": list(self.hits), "area": self.area}


def roc(normal: Tensor, anomalous: Tensor) -> Roc:
    """Receiver operating characteristic of two groups of scores, [n] and [m].

    Raises:
        ConfigError: a group is empty or not finite.
    """
    both = torch.cat([normal, anomalous]).double()
    if not len(normal) or not len(anomalous) or not bool(torch.isfinite(both).all()):
        raise ConfigError("both groups need at least one score, and finite ones.")
    with needs("measure"):
        from sklearn.metrics import auc, roc_curve
    false, hits, _ = roc_curve([0] * len(normal) + [1] * len(anomalous), both.numpy(), drop_intermediate=False)
    return Roc(tuple(false.tolist()), tuple(hits.tolist()), float(auc(false, hits)))


@dataclass(frozen=True)
class MonitorStudy:
    """Distances of chats to normal ones."""

    threshold: float
    ordinary: tuple[float, ...]
    """Of normal chats that played no part in the fit."""
    groups: dict[str, tuple[float, ...]]
    """Of each group of chats that is checked."""

    def roc(self, group: str) -> Roc:
        """How well the distance tells a group from the ordinary chats."""
        return roc(torch.tensor(self.ordinary), torch.tensor(self.groups[group]))

    def reported(self, group: str | None = None) -> float:
        """Share of a group, or of the ordinary chats, beyond the threshold."""
        distances = self.ordinary if group is None else self.groups[group]
        return sum(d > self.threshold for d in distances) / len(distances)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        groups = {
            name: {"distances": list(d), "reported": self.reported(name), "roc": self.roc(name).to_dict()}
            for name, d in self.groups.items()
        }
        return {"threshold": self.threshold, "ordinary": list(self.ordinary), "groups": groups}


def study_monitor(
    loaded: LoadedModel,
    bank: VectorBank,
    normal: Sequence[Sequence[Message]],
    held: Sequence[Sequence[Message]],
    ordinary: Sequence[Sequence[Message]],
    groups: Mapping[str, Sequence[Sequence[Message]]],
    tokens: int = 1,
    false_alarms: float = 0.05,
) -> MonitorStudy:
    """Fit a monitor on normal chats and check groups of others. Do the same with random directions as the control.

    Args:
        normal, held: normal chats that the monitor and its threshold are fitted on.
        ordinary: further normal chats, that the groups are compared with.
    """
    monitor = fit_monitor(
        chat_features(loaded, bank, normal, tokens), chat_features(loaded, bank, held, tokens), false_alarms
    )

    def distances(chats: Sequence[Sequence[Message]]) -> tuple[float, ...]:
        return tuple(monitor.distances(chat_features(loaded, bank, chats, tokens)).tolist())

    return MonitorStudy(monitor.threshold, distances(ordinary), {name: distances(c) for name, c in groups.items()})
