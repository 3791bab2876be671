"""Watch a model while it answers. Features: projections on a bank's vectors. Alarm: the distance to normal chats.

1. At each generated token, the residual stream at the bank's layer is projected on the bank's directions.
2. A chat's features are the projections at its prompt's last token, or their mean over it and the first answer tokens.
3. `fit_monitor` computes mean and covariance of the features of normal chats (scikit-learn). The covariance is shrunk
   towards its diagonal (as in https://doi.org/10.1016/S0047-259X(03)00096-4, but by a fixed share), so that it can be
   inverted with few chats.
4. The distance is Mahalanobis's; above a quantile of the distances of other normal chats it raises the alarm.
"""

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
from melbo.runs.parse import dump
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import edit_outputs

SHRINKAGE = 0.1
"""Share of the covariance that is replaced by its diagonal."""


class Watch:
    """The projections of each pass's newest token; `watching` fills it while the model runs."""

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
    """Record the projections on unit directions [n, d_model] at the output of block `layer`. Changes nothing.

    Args:
        tokens: how many forward passes are recorded, at most: the prompt's last token, then the first answer tokens.

    Raises:
        ConfigError: directions or layer do not fit the model.
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
        tokens: forward passes to average. 1 is the prompt's last token alone, before any answer: the best choice where
            it was measured (docs/elicit.md).
        batch_size: chats run together, if tokens is 1.

    Raises:
        PromptError: there is no prompt. BankError: the bank is of another model.
    """
    bank.check_fits(loaded)
    if not prompts:
        raise PromptError("no chat was given; give at least one.")
    directions = torch.nn.functional.normalize(bank.vectors, dim=-1)
    size = batch_size if tokens == 1 else 1  # a batch would go on with padding in rows that have ended
    found = []
    for start in range(0, len(prompts), size):
        with watching(loaded, directions, bank.layer, tokens) as watch:
            complete(loaded, prompts[start : start + size], sampling=Sampling(tokens), batch_size=size)
        found.append(watch.features())
    return torch.cat(found)


@dataclass(frozen=True, eq=False)
class Monitor:
    """A fitted monitor: where the features of normal chats lie."""

    scaler: Any
    """scikit-learn's StandardScaler of the n features."""
    covariance: Any
    """scikit-learn's ShrunkCovariance of the scaled features: there, the diagonal is the identity it shrinks to."""
    threshold: float
    """A chat is reported above this distance."""

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


def fit_monitor(normal: Tensor, held: Tensor, false_alarms: float = 0.05, shrinkage: float = SHRINKAGE) -> Monitor:
    """A monitor of normal chats.

    Args:
        normal: features [rows, n] for mean and covariance, at least 2 rows.
        held: features of other normal chats; the threshold is the 1 - false_alarms quantile of their distances.
        shrinkage: above 0, at most 1.

    Raises:
        ConfigError: too few rows, widths that differ, or a share out of range.
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
    """How well a score separates anomalies from normal chats."""

    false_alarms: tuple[float, ...]
    """Share of normal chats at or above each threshold, rising from 0 to 1."""
    hits: tuple[float, ...]
    """Share of anomalies at or above each threshold."""
    area: float
    """Area under the curve: the chance that an anomaly scores above a normal chat; ties count half."""


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
    """Of normal chats that the fit did not use."""
    groups: dict[str, tuple[float, ...]]
    """Of each group of chats to check."""

    def roc(self, group: str) -> Roc:
        """How well the distance separates a group from the ordinary chats."""
        return roc(torch.tensor(self.ordinary), torch.tensor(self.groups[group]))

    def reported(self, group: str | None = None) -> float:
        """Share of a group, or of the ordinary chats, beyond the threshold."""
        distances = self.ordinary if group is None else self.groups[group]
        return sum(d > self.threshold for d in distances) / len(distances)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        groups = {
            name: {"distances": list(d), "reported": self.reported(name), "roc": dump(self.roc(name))}
            for name, d in self.groups.items()
        }
        return dump(self) | {"groups": groups}


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
    """Fit a monitor on normal chats and check other groups with it. Do the same with random directions as the control.

    Args:
        normal: normal chats to fit the monitor on.
        held: normal chats to fit its threshold on.
        ordinary: further normal chats, to compare the groups with.
    """
    monitor = fit_monitor(
        chat_features(loaded, bank, normal, tokens), chat_features(loaded, bank, held, tokens), false_alarms
    )

    def distances(chats: Sequence[Sequence[Message]]) -> tuple[float, ...]:
        return tuple(monitor.distances(chat_features(loaded, bank, chats, tokens)).tolist())

    return MonitorStudy(monitor.threshold, distances(ordinary), {name: distances(c) for name, c in groups.items()})
