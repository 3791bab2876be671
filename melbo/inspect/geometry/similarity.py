"""Geometry of a bank: how vectors and their effects lie to each other, to supervised directions, and to later layers.

Effects are mean changes at the target layer, at the prompts' last token. Most of an effect is the vector itself, which
the residual stream passes on; vectors of one bank are orthogonal as a rule, and so look different in all of it. What
the blocks *add* (effect less vector) shows which vectors do the same, and is what the clusters are made from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.bank.result_file import FORMATS, GEOMETRY, Count, Extensible, FileKind, Result
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, CorpusError
from melbo.inspect.geometry.difference_of_means import Contrast, difference_of_means
from melbo.inspect.geometry.effects import LayerChange, effects, layer_changes
from melbo.models.load import LoadedModel
from melbo.runs.figures import draw
from melbo.runs.files import write_file
from melbo.steering.random_vectors import random_vectors

TABLES = ("vector_cosines", "effect_cosines", "added_cosines")
NUMBERED = 24
"""Most vectors whose numbers all stand at a plot's axes."""
SHAPES = ("vectors", "effects", "added", "random effects", "random added")


@dataclass(frozen=True)
class Overlap(Extensible):
    """Cosines of all vectors with one difference-of-means vector at the source layer."""

    name: str
    cosines: tuple[float, ...]

    @property
    def best(self) -> tuple[int, float]:
        """The vector with the greatest absolute cosine, and that cosine."""
        index = max(range(len(self.cosines)), key=lambda i: abs(self.cosines[i]))
        return index, self.cosines[index]


@dataclass(frozen=True)
class Geometry(Result):
    """What was measured."""

    file = FileKind(FORMATS[GEOMETRY], "geometry", "melbo inspect geometry")

    source_layer: Count
    target_layer: Count
    labels: tuple[str, ...]
    vector_cosines: tuple[tuple[float, ...], ...]
    """n by n."""
    effect_cosines: tuple[tuple[float, ...], ...]
    added_cosines: tuple[tuple[float, ...], ...]
    """Between what the blocks add."""
    clusters: tuple[Count, ...]
    """Per vector, the number of its cluster of what the blocks add; 0 is the largest cluster."""
    participation: Mapping[str, float]
    """Participation ratio of unit "vectors", "effects" and what is "added", and of "random effects", "random added"."""
    overlaps: tuple[Overlap, ...]
    chance: float
    """Greatest absolute cosine of as many random directions with one direction, on average over random draws."""
    layers: tuple[LayerChange, ...]

    def __post_init__(self) -> None:
        n, tables = len(self.labels), [getattr(self, name) for name in TABLES]
        rows = [*(row for t in tables for row in t), *(o.cosines for o in self.overlaps), self.clusters]
        if not n or {*map(len, tables), *map(len, rows)} != {n} or max(self.clusters) >= n:
            raise CorpusError("tables of different sizes")
        if missing := [name for name in SHAPES if name not in self.participation]:
            raise CorpusError(f"no participation ratio of {missing[0]}")

    def table(self) -> str:
        """Text for a terminal."""
        p = self.participation
        groups = [[i for i, c in enumerate(self.clusters) if c == number] for number in range(max(self.clusters) + 1)]
        lines = [
            f"geometry of {len(self.labels)} vectors for {self.model.id}, layers {self.source_layer} -> "
            f"{self.target_layer}",
            "participation ratio: " + ", ".join(f"{name} {p[name]:.1f}" for name in SHAPES),
            f"{len(groups)} clusters of what the blocks add:",
            *(f"  {', '.join(f'{i} {self.labels[i]}' for i in g)}" for g in groups if len(g) > 1),
            f"  and {sum(len(g) == 1 for g in groups)} vectors by themselves",
        ]
        if self.overlaps:
            lines.append(f"difference-of-means vectors (best |cosine| by chance {self.chance:.2f}):")
        for overlap in self.overlaps:
            index, cosine = overlap.best
            lines.append(f"  {overlap.name:<20} vector {index} {self.labels[index]}: {cosine:+.2f}")
        lines.append(f"{'layer':>5}  {'norm':>6}  {'cosine':>6}  {'random norm':>11}  {'random cosine':>13}")
        for c in self.layers:
            lines.append(
                f"{c.layer:>5}  {c.norm:6.2f}  {c.cosine:6.2f}  {c.random_norm:11.2f}  {c.random_cosine:13.2f}"
            )
        return "\n".join(lines)


def measure_geometry(
    loaded: LoadedModel,
    bank: VectorBank,
    contrasts: Sequence[Contrast] = (),
    threshold: float = 0.5,
    n_random: int | None = None,
    seed: int = 0,
) -> Geometry:
    """All of it, from the model and the bank's own prompts.

    Args:
        contrasts: what difference-of-means vectors are made from.
        threshold: clusters of what the blocks add are joined while their mean cosine is above it.
        n_random: random vectors of the control; None: as many as the bank has.

    Raises:
        BankError, ConfigError: the bank is not this model's, or a setting is out of range.
    """
    bank.check_fits(loaded)
    n = len(bank) if n_random is None else n_random
    if n < 1 or not -1 < threshold < 1:
        raise ConfigError(f"n_random is {n}, the threshold {threshold}; use at least 1, and a cosine from -1 to 1.")
    target = bank.config.target_layer
    assert target is not None
    random = random_vectors(n, loaded.d_model, bank.radius, False, seed)
    shapes = _shapes(loaded, bank, random, target)
    added = cosines(shapes["added"], shapes["added"])
    return Geometry(
        bank.digest, bank.base_model, bank.layer, target,
        labels=tuple(bank.label(i) for i in range(len(bank))),
        vector_cosines=_rounded(cosines(bank.vectors, bank.vectors)),
        effect_cosines=_rounded(cosines(shapes["effects"], shapes["effects"])),
        added_cosines=_rounded(added),
        clusters=cluster(added, threshold),
        participation={
            name: participation_ratio(torch.nn.functional.normalize(rows, dim=-1)) for name, rows in shapes.items()
        },
        overlaps=tuple(_overlap(loaded, bank, contrast) for contrast in contrasts),
        chance=chance_cosine(len(bank), loaded.d_model, seed),
        layers=layer_changes(loaded, bank.vectors, random, bank.prompts, bank.layer, 1),
    )  # fmt: skip


def _shapes(loaded: LoadedModel, bank: VectorBank, random: Tensor, target: int) -> dict[str, Tensor]:
    """Rows [n, d_model] by SHAPES."""
    own, other = (effects(loaded, v, bank.prompts, bank.layer, target) for v in (bank.vectors, random))
    return dict(zip(SHAPES, (bank.vectors, own, own - bank.vectors, other, other - random), strict=True))


def _overlap(loaded: LoadedModel, bank: VectorBank, contrast: Contrast) -> Overlap:
    direction = difference_of_means(loaded, contrast, bank.layer)
    return Overlap(contrast.name, _rounded(cosines(direction[None], bank.vectors))[0])


def cosines(one: Tensor, two: Tensor) -> Tensor:
    """[n, m] of rows [n, d] and [m, d]; 0 where a row is zero."""
    return torch.nn.functional.normalize(one.float(), dim=-1) @ torch.nn.functional.normalize(two.float(), dim=-1).T


def participation_ratio(rows: Tensor) -> float:
    """(sum of eigenvalues)^2 / sum of their squares, of the Gram matrix of rows [n, d]: how many dimensions they fill.

    Between 1 (all parallel) and min(n, d) (orthogonal, of equal length).
    """
    gram = (rows.double() @ rows.double().T) / max(float(rows.double().square().sum()), 1e-300)
    return float(gram.trace() ** 2 / gram.square().sum())


def cluster(similarity: Tensor, threshold: float) -> tuple[int, ...]:
    """Average-linkage clusters of a cosine matrix [n, n], numbered from the largest."""
    n = len(similarity)
    if n == 1:
        return (0,)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distance = (1 - similarity.double().numpy()).clip(min=0)
    distance[range(n), range(n)] = 0
    found = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - threshold, "distance").tolist()
    order = sorted(set(found), key=lambda c: (-found.count(c), found.index(c)))
    return tuple(order.index(c) for c in found)


def chance_cosine(n: int, d_model: int, seed: int, draws: int = 64) -> float:
    """Mean greatest absolute cosine of n random directions with another one."""
    others = random_vectors(draws, d_model, 1.0, False, seed)
    best = cosines(others, random_vectors(n, d_model, 1.0, False, seed + 1)).abs().max(dim=1).values
    return float(best.mean())


def _rounded(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.double().round(decimals=4).tolist())


def sort_by_cluster(found: Geometry) -> list[int]:
    """Vectors in the order of their clusters, for a plot."""
    return sorted(range(len(found.labels)), key=lambda i: (found.clusters[i], i))


def plot(found: Geometry, path: Path) -> Path:
    """Cosines of vectors and of effects as heat maps, and the change at each later layer; PNG or SVG by the ending.

    Raises:
        ConfigError: another ending. MissingPackageError: matplotlib is not installed.
    """

    def fill(figure: Any) -> None:
        figure.suptitle(f"Geometry of {len(found.labels)} vectors for {found.model.id}", parse_math=False)
        axes = figure.subplots(2, 2).flatten()
        order = sort_by_cluster(found)
        _cosines(figure, axes[0], "cosines between vectors", found.vector_cosines, order)
        _cosines(figure, axes[1], "cosines between effects", found.effect_cosines, order)
        _cosines(figure, axes[2], "cosines between what the blocks add", found.added_cosines, order)
        _layers(axes[3], found)

    return write_file(path, draw((11, 9), fill, path.suffix))


def _cosines(figure: Any, axes: Any, title: str, values: tuple[tuple[float, ...], ...], order: list[int]) -> None:
    rows = [[values[i][j] for j in order] for i in order]
    image = axes.imshow(rows, cmap="PuOr", vmin=-1, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title(title)
    axes.set_xlabel("vector, ordered by cluster of what the blocks add")
    shown = range(len(order)) if len(order) <= NUMBERED else range(0, 0)
    axes.set_xticks(shown, [str(order[i]) for i in shown], fontsize=7)
    axes.set_yticks(shown, [str(order[i]) for i in shown], fontsize=7)


def _layers(axes: Any, found: Geometry) -> None:
    """Norms as full lines, cosines as dashed ones; the bank with dots, the control with crosses."""
    layers = [c.layer for c in found.layers]
    for name, attribute, style in (
        ("norm, vectors", "norm", "o-"),
        ("norm, random", "random_norm", "x-"),
        ("cosine, vectors", "cosine", "o--"),
        ("cosine, random", "random_cosine", "x--"),
    ):
        color = "#b35806" if "vectors" in name else "#542788"
        axes.plot(layers, [getattr(c, attribute) for c in found.layers], style, color=color, label=name)
    axes.axvline(found.target_layer, color="0.6", linewidth=1, linestyle=":")
    axes.set_title("change at later layers (dotted: target)")
    axes.set_xlabel("layer")
    axes.set_xticks(layers[:: 1 + len(layers) // 16])
    axes.set_ylabel("norm per norm of the vector; cosine with it")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
