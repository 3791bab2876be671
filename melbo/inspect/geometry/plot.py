"""Plots of a bank's geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melbo.inspect.geometry.similarity import Geometry, sort_by_cluster
from melbo.runs.figures import draw
from melbo.runs.files import write_file

NUMBERED = 24
"""Most vectors whose numbers all stand at the axes."""


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
